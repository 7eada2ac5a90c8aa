"""A Candidate on a Split → a Classifier. `candidate`, `recipe` and `views` are plain data and free of torch."""

"""A Candidate on a Split becomes a trained Classifier."""

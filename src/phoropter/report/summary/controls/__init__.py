"""Results of negative controls, read from the results folders inside a study's."""

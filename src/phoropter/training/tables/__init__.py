"""Candidates without a network: features and predictions of rows as tables, and the classifiers of features."""

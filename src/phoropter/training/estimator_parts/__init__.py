"""What the scikit-learn estimator is made of: its input, and the bundle it is saved as."""

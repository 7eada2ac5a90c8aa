"""Side runs of a study: the choice of tuned values by trials on inner folds."""

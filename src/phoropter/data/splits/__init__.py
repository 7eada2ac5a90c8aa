"""From labels, groups, sites and a seed to train, validation and test rows."""

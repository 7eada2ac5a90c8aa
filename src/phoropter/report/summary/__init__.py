"""A results folder read once and aggregated: what every section is given."""

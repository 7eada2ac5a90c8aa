"""Negative controls: run after the study, each into a results folder of its own inside the study's."""

"""What is computed of runs that are finished already."""

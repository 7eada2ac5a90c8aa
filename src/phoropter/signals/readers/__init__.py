"""Files of recordings to Recording objects: WFDB, EDF, WESAD, CSV."""

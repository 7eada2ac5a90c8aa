"""Where a classifier looked: maps over the picture, along time for recordings, for each branch and for all together."""

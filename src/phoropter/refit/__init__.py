"""From a finished study to one classifier for use, trained anew on all rows."""

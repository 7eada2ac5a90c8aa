"""The questions of a study: contrasts planned beforehand, and the best candidate's value corrected for the choice."""

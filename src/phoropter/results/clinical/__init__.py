"""What somebody who acts on an answer needs: one answer for a person, thresholds, predictive values, net benefit."""

"""What is done with results folders beside computing and reporting: checked, freed, merged, stopped; and data packed."""

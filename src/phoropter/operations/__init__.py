"""What is done beside computing and reporting: results checked, freed, merged, stopped; data packed; treatments shown"""

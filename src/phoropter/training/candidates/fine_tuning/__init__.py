"""What of a network a recipe trains: phases, and adapters in the place of its weights."""

"""What fine-tuning asks of a network: its layers, its last blocks, adapters, and less memory for a backward pass."""

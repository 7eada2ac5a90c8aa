"""How a network is fine-tuned beyond its phases: adapters, less memory, and a frozen part that is computed once and kept."""

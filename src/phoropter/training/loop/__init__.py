"""The training loop: schedule, precision, losses, checkpoints."""

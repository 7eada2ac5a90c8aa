"""What this machine is measured to do, by a few real batches, before a study is computed."""

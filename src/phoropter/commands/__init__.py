"""Commands that look at studies and settings, and the machine-readable form of what commands say."""

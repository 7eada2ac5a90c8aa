"""Augmentation steps: their options, their draws by image id, and their operations on batches."""

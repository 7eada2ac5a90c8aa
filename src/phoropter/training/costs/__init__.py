"""What a candidate takes: the batch of a prediction, peak memory, and the passes of frozen backbones."""

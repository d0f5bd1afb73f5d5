"""From lists of files to batches: samples (lists), splits, sampling (which, when), transforms (pixels), dataset."""

"""The Artifact Purification Network as PyTorch modules; this package knows tensors, not files or images."""

"""The training step compiled for TPUs, without a TPU."""

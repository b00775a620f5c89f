"""Devices: strategies, TPUs, the workers of a training."""

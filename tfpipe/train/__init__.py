"""Devices and precision, the optimizer, the one training loop."""

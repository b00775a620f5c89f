"""The training step compiled for TPUs, without one."""

"""Pruning and quantization with TF-MOT."""

"""Pretrained encoders: sources, files, architectures, weights. No TensorFlow."""

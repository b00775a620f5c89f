"""Artifact formats: how each is written, inspected, loaded and read."""

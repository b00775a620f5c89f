"""The configuration of a run: typed, strict, read from YAML."""

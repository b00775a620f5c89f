"""Files: their choice (`sources.py`, `folders.py`, `hubs.py`), their formats (`formats.py`), and their bytes."""

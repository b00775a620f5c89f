"""Files: which are read (`sources.py`, `folders.py`, `hubs.py`), as what (`formats.py`), and their bytes."""

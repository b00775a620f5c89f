"""Labels: the content of cells (`lists.py`, `form.py`, `cells.py`), the list of labels (`names.py`, `survey.py`)."""

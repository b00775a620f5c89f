"""Labels: what a cell says (`lists.py`, `form.py`, `cells.py`), which labels there are (`names.py`, `survey.py`)."""

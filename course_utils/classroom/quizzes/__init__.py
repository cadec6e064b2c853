"""The questions of the notebooks, one module per notebook: nb00.py belongs to notebook 00."""

"""Shrinking BERT: what the notebooks stand on. Importing it loads neither torch nor transformers."""

__version__ = "0.1.0"

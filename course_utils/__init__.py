"""Shrinking BERT: what the notebooks stand on. Importing it loads no torch, no transformers."""

__version__ = "0.1.0"

"""Corpora: open, prepare, describe, generate, partition and spoil them."""

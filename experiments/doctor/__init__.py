"""Diagnose a training run: read its curves, check them, and advise."""

"""Differential privacy of clients: clipping, noise, accounting."""

"""Recorded and synthetic speech: reading, cropping, batching."""

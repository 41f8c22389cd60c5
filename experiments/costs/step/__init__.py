"""One training step, its work and its memory by module."""

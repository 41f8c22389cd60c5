"""One training step: its operations, its traffic and its memory by module."""

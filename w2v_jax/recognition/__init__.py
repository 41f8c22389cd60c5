"""Speech recognition with CTC: heads, training, error rates."""

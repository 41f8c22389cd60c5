"""Lengths that `w2v-jax study length` compares."""

CROP_SECONDS = (1.0, 2.0, 4.0, 8.0)
BATCH_SECONDS = 8.0  # all crops of a batch together, at any length

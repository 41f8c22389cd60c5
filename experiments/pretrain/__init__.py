"""`w2v-jax pretrain` and what belongs to its runs."""

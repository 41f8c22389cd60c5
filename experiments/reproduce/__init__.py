"""`w2v-jax reproduce`: the paper's tables and figures."""

"""`w2v-jax study mechanism`: what loss-weighted averaging rewards."""

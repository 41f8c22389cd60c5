"""`w2v-jax watch`: runs live in the terminal."""

"""`w2v-jax bench memory`: memory and time of training, by method."""

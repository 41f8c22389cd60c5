"""`w2v-jax reproduce frontier`: memory against time by training method."""

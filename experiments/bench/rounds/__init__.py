"""`w2v-jax bench rounds`: seconds per round beside other tools."""

"""`w2v-jax profile`: where the operations and the memory of a training step go."""

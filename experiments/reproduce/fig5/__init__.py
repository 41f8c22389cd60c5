"""`w2v-jax reproduce fig5`: federated pre-training, and recognition after it."""

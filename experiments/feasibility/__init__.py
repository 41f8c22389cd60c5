"""`w2v-jax feasibility`: which devices could pre-train."""

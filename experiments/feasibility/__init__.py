"""`w2v-jax feasibility`: judge which devices could pre-train."""

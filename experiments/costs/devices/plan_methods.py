"""Training methods that plans are kept of, for the feasibility table. Imports no jax."""

METHODS = ("plain", "remat", "exact")

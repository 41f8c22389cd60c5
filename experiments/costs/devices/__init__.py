"""Costs of a training step on devices: compilers' plans, modelled seconds, timings from boards."""

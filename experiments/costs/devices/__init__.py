"""Costs of a step on devices: compilers' plans, modelled seconds, timings from boards."""

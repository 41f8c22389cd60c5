"""Benchmarks: rounds, cohorts, compilation, data, memory and utilisation."""

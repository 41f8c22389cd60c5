"""Studies over many runs: cells, arms, seeds."""

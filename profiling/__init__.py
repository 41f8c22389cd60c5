"""The cost of any function of arrays: FLOPs, memory and time."""

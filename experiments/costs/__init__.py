"""The cost of a training step: operations, memory, plans, exported steps."""

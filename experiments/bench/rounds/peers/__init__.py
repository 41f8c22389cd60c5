"""Other ways to run a federated round, each a program of its own, for `w2v-jax bench rounds`.

All runners read the same initial parameters and batches from a file and do the same work. Each runs in the
virtual environment of its framework. Runners in torch import nothing of this project but this package;
runners in jax use its model.
"""

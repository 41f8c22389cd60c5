"""Other ways to run a federated round, each a program of its own, for `w2v-jax bench rounds`.

Every runner takes the same initial parameters and batches from a file and does the same work; each runs
in the virtual environment of its framework. Those in torch import nothing of this project but this
package; those in jax take its model.
"""

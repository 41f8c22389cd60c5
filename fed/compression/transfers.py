"""The bytes that one client of a round receives and sends, counted from shapes; nothing is run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fed.algorithm import Algorithm, LocalStep, Server, Trained, array_bytes
from fed.client import LocalTraining
from fed.protocols import PyTree


class Transfers(NamedTuple):
    """Bytes of the arrays that cross between the server and one client in a round.

    The few scalars of a client's report (its loss and weight) and the headers of a transport are not
    counted.
    """

    down: int
    up: int

    def of_clients(self, invited: int, answered: int) -> "Transfers":
        """Multiply for a round: all invited clients receive, and those that answer also send."""
        return Transfers(invited * self.down, answered * self.up)


def client_transfers(
    algorithm: Algorithm, training: LocalTraining, parameters: PyTree, objective_state: PyTree = ()
) -> Transfers:
    """Count the bytes of one client's round under an algorithm, with the codecs of `fed.compression`.

    Down cross the parameters, the objective's state, and those arrays of the algorithm's state on the
    server that its clients read, such as the control variate of SCAFFOLD. Up cross the message and the
    change of the objective's state. Codecs change the parameters and the message alone.

    Args:
        algorithm: that the run uses.
        training: how its clients train; only the optimizer's shapes are used.
        parameters: the server's, concrete or abstract. Under `fed.compression.partial` they are the trained
            ones: the frozen ones reach a client once, before its first round, and are not counted.
        objective_state: the server's.
    """
    state = array_bytes(objective_state)
    read = array_bytes(_state_that_clients_read(algorithm, training, parameters))
    message = message_shapes(algorithm, training, parameters)
    return Transfers(algorithm.bytes_down(parameters) + read + state, algorithm.bytes_up(message) + state)


def message_shapes(algorithm: Algorithm, training: LocalTraining, parameters: PyTree) -> PyTree:
    """Find the shapes of the message that a client sends."""

    def message(parameters: PyTree) -> PyTree:
        return _one_step(algorithm, training, Server(parameters, algorithm.server_init(parameters)))[0]

    return jax.eval_shape(message, parameters)


class _AnySums(dict):
    """The sums of an objective that is not known: every name has a total and a weight."""

    def __missing__(self, name: str) -> tuple[jax.Array, jax.Array]:
        return jnp.float32(0.0), jnp.float32(1.0)


def _one_step(algorithm: Algorithm, training: LocalTraining, server: Server) -> tuple[PyTree, PyTree, PyTree]:
    """Make one client's (message, new state, gradients); parameters stand for its gradients."""
    begun_with = server.parameters
    kept = () if algorithm.client_init is None else algorithm.client_init(training, begun_with)
    begun = algorithm.begin(training, server, kept)
    step = LocalStep(
        begun.parameters,
        begun.parameters,
        server,
        lambda parameters: (parameters, _AnySums()),
    )
    gradients, memory = algorithm.gradient(step, begun.memory)
    one = jnp.float32(1.0)
    trained = Trained(begun.parameters, begun.optimizer_state, memory, server, one, one, jax.random.key(0))
    return *algorithm.message(trained), gradients


def _state_that_clients_read(
    algorithm: Algorithm, training: LocalTraining, parameters: PyTree
) -> list[jax.ShapeDtypeStruct]:
    """Find the arrays of the server's state that occur in what a client computes."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(algorithm.server_init, parameters))

    def client(leaves: list, parameters: PyTree) -> PyTree:
        return _one_step(algorithm, training, Server(parameters, jax.tree.unflatten(structure, leaves)))

    traced = jax.make_jaxpr(client)(leaves, parameters).jaxpr
    read = {id(found) for equation in traced.eqns for found in equation.invars}
    read |= {id(found) for found in traced.outvars}
    inputs = traced.invars[: len(leaves)]
    return [leaf for leaf, held in zip(leaves, inputs, strict=True) if id(held) in read]

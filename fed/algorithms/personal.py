"""Personal layers: some leaves stay with each client (Arivazhagan et al. 2019, arXiv 1912.00818)."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from fed.algorithm import Algorithm, Combined, LocalStep, Server, Start, Trained
from fed.protocols import FederationError, PyTree

Predicate = Callable[[tuple], bool]


def named(*names: str) -> Predicate:
    """Make a predicate that chooses the leaves under one of these names, such as "head"."""
    return lambda path: any(getattr(part, "key", getattr(part, "name", None)) in names for part in path)


def personal(algorithm: Algorithm, is_local: Predicate) -> Algorithm:
    """Keep some leaves of the model on each client, and run an algorithm over all other leaves.

    A client keeps its local leaves from round to round and trains them with the shared ones. No message has
    them, and the server's own stay as they were at the beginning; clients begin their first round with
    these. The wrapped algorithm sees trees in which None stands for every local leaf. The optimizer sees the
    whole model. The reported norm of a client's update, and `max_update_norm`, count the local leaves too.

    Args:
        algorithm: such as `averaging()` or `scaffold()`.
        is_local: path of a leaf, as of `jax.tree_util.tree_map_with_path` -> whether clients keep it.

    Raises:
        FederationError: when the server begins, if the predicate chooses no leaf or every leaf.
    """
    made = algorithm.client_init

    def shared(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: None if is_local(path) else leaf, tree)

    def local(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if is_local(path) else None, tree)

    def view(server: Server) -> Server:
        return Server(shared(server.parameters), server.state)

    def around(training: Any, own: PyTree) -> Any:
        """Let the wrapped algorithm begin an optimizer of the shared leaves as one of the whole model."""
        return training._replace(
            optimizer=optax.GradientTransformation(
                lambda params: training.optimizer.init(joined(params, own)),
                training.optimizer.update,
            )
        )

    def server_init(parameters: PyTree) -> PyTree:
        if not jax.tree.leaves(local(parameters)) or not jax.tree.leaves(shared(parameters)):
            raise FederationError(
                "personal layers need a predicate that chooses some leaves of the model, but not all of them"
            )
        return algorithm.server_init(shared(parameters))

    def client_init(training: Any, parameters: PyTree) -> PyTree:
        own = local(parameters)
        inner = () if made is None else made(around(training, own), shared(parameters))
        return {"local": own, "inner": inner}

    def begin(training: Any, server: Server, kept: PyTree) -> Start:
        own = kept["local"]
        start = algorithm.begin(around(training, own), view(server), kept["inner"])
        return start._replace(parameters=joined(start.parameters, own))

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        own = local(step.parameters)

        def evaluate(parameters: PyTree) -> tuple[PyTree, PyTree]:
            gradients, sums = step.evaluate(joined(parameters, own))
            return shared(gradients), sums

        found, memory = algorithm.gradient(
            LocalStep(shared(step.parameters), shared(step.gradients), view(step.server), evaluate), memory
        )
        return joined(found, local(step.gradients)), memory

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        sent, inner = algorithm.message(
            trained._replace(parameters=shared(trained.parameters), server=view(trained.server))
        )
        return sent, {"local": local(trained.parameters), "inner": inner}

    def server_step(server: Server, combined: Combined) -> Server:
        new = algorithm.server_step(view(server), combined)
        return Server(joined(new.parameters, local(server.parameters)), new.state)

    def broadcast(server: Server, key: jax.Array) -> PyTree:
        assert algorithm.broadcast is not None
        return joined(algorithm.broadcast(view(server), key), local(server.parameters))

    return algorithm._replace(
        server_init=server_init,
        client_init=client_init,
        bytes_down=lambda parameters: algorithm.bytes_down(shared(parameters)),
        broadcast=None if algorithm.broadcast is None else broadcast,
        begin=begin,
        gradient=gradient,
        message=message,
        server_step=server_step,
    )


def joined(shared: PyTree, local: PyTree) -> PyTree:
    """Put the leaves of two trees together, each of which has None where the other one has a leaf."""
    return jax.tree.map(
        lambda one, other: other if one is None else one, shared, local, is_leaf=lambda leaf: leaf is None
    )

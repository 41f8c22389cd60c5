"""Any algorithm with fewer bytes: its messages pass through a codec, and so may the server's model."""

from typing import Any

import jax
import jax.numpy as jnp

from fed.algorithm import Algorithm, LocalStep, Server, Start, Trained, array_bytes
from fed.compression.codecs import Codec
from fed.compression.transfers import message_shapes
from fed.protocols import FederationError, PyTree

_CODEC = 1  # the algorithm itself may draw from the key as it is


def compressed(
    algorithm: Algorithm, up: Codec | None = None, down: Codec | None = None, error_feedback: bool = True
) -> Algorithm:
    """Compress an algorithm's messages, the model that its server sends, or both.

    Up, the codec takes the whole message; of a dict with an "update" it takes the entries that are shaped
    like the update, such as the control of SCAFFOLD, and the others cross as they are. With error feedback
    (Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847) a client adds what earlier rounds failed
    to send to its message, and keeps as its state what this one fails to send. A client that does not
    count keeps its former remainder. Every client that has taken part keeps one, as large as the message.

    Down, clients begin with the decoded model and send their change from it, and the server adds that to
    its own float32 model (Yang et al. 2022, arXiv 2205.03494). State of the algorithm crosses as it is.

    Args:
        algorithm: to be compressed.
        up: codec of the messages; None sends them as they are.
        down: codec of the server's parameters; None sends them as they are.
        error_feedback: keep the remainder of the messages; an exact codec leaves none.

    Raises:
        FederationError: the algorithm is compressed already, `down` would send mostly zeros, or `up` does
            not go together with error feedback.
    """
    if algorithm.bytes_up is not array_bytes or algorithm.bytes_down is not array_bytes:
        raise FederationError("the algorithm is compressed already: give both codecs in one call")
    if down is not None and down.sparse:
        raise FederationError(
            f"{down.name} would send a model of mostly zeros: use fp32, bf16, q8, q4 or q2 down"
        )
    if up is not None and up.expands and error_feedback:
        raise FederationError(
            f"{up.name} scaled to be unbiased makes error feedback diverge: use it without error feedback, "
            "or the codec without its scale"
        )
    found = algorithm if down is None else _down(algorithm, down)
    if up is None:
        return found
    return _with_feedback(found, up) if error_feedback and not up.exact else _up(found, up)


def _down(algorithm: Algorithm, codec: Codec) -> Algorithm:
    def broadcast(server: Server, key: jax.Array) -> PyTree:
        held = server.parameters if algorithm.broadcast is None else algorithm.broadcast(server, key)
        return codec.round_trip(held, jax.random.fold_in(key, _CODEC))

    return algorithm._replace(broadcast=broadcast, bytes_down=codec.bytes_of)


def _up(algorithm: Algorithm, codec: Codec) -> Algorithm:
    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        meant, kept = algorithm.message(trained)
        sent = codec.round_trip(_parts(meant), jax.random.fold_in(trained.key, _CODEC))
        return _replaced(meant, sent), kept

    def bytes_up(message: PyTree) -> int:
        parts = _parts(message)
        return codec.bytes_of(parts) + array_bytes(message) - array_bytes(parts)

    return algorithm._replace(message=message, bytes_up=bytes_up)


def _with_feedback(algorithm: Algorithm, codec: Codec) -> Algorithm:
    def client_init(training: Any, parameters: PyTree) -> PyTree:
        own = () if algorithm.client_init is None else algorithm.client_init(training, parameters)
        parts = _parts(message_shapes(algorithm, training, parameters))
        return {"own": own, "unsent": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), parts)}

    def begin(training: Any, server: Server, kept: PyTree) -> Start:
        begun = algorithm.begin(training, server, kept["own"])
        return begun._replace(memory={"own": begun.memory, "unsent": kept["unsent"]})

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        found, own = algorithm.gradient(step, memory["own"])
        return found, memory | {"own": own}

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        fresh, own = algorithm.message(trained._replace(memory=trained.memory["own"]))
        meant = jax.tree.map(jnp.add, _parts(fresh), trained.memory["unsent"])
        sent = codec.round_trip(meant, jax.random.fold_in(trained.key, _CODEC))
        unsent = jax.tree.map(jnp.subtract, meant, sent)
        return _replaced(fresh, sent), {"own": own, "unsent": unsent}

    return _up(algorithm, codec)._replace(
        client_init=client_init, begin=begin, gradient=gradient, message=message
    )


def _is_divided(message: PyTree) -> bool:
    return isinstance(message, dict) and "update" in message


def _parts(message: PyTree) -> dict[str, PyTree]:
    """Select what the codec takes."""
    if not _is_divided(message):
        return {"update": message}
    like = _shapes(message["update"])
    return {name: part for name, part in message.items() if _shapes(part) == like}


def _replaced(message: PyTree, parts: dict[str, PyTree]) -> PyTree:
    """Put decoded parts in the place of those that were meant."""
    return message | parts if _is_divided(message) else parts["update"]


def _shapes(tree: PyTree) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [leaf.shape for leaf in leaves]

"""The messages between the apps: pytrees as Flower's records of NumPy arrays.

A record has the leaves of a tree in their order, so that both sides need the same objective and algorithm.
"""

import collections
import functools
import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fed.algorithm import Algorithm, LocalStep, Server, Trained
from fed.client import LocalTraining
from fed.cohort import ClientReport, Verdict
from fed.protocols import FederationError, PyTree

TESTED = "1.42.0"


class Flwr(NamedTuple):
    """The modules of flwr that the apps need."""

    app: Any
    client: Any
    server: Any


@functools.cache
def import_flwr() -> Flwr:
    """Import flwr.

    Raises:
        FederationError: it is not installed, or has another interface.
    """
    try:
        return Flwr(*(importlib.import_module(f"flwr.{name}") for name in ("app", "clientapp", "serverapp")))
    except ImportError as error:
        raise FederationError(
            f"Flower cannot be imported ({error}): pip install 'flwr=={TESTED}', the version that was tested"
        ) from error


def pack(tree: PyTree) -> Any:
    """Make Flower's ArrayRecord of a tree's leaves."""
    return import_flwr().app.ArrayRecord([np.asarray(leaf) for leaf in jax.tree.leaves(tree)])


def unpack(record: Any, like: PyTree, what: str) -> PyTree:
    """Make a tree of NumPy arrays from an ArrayRecord.

    Args:
        record: from `pack`.
        like: a tree of arrays or abstract arrays.
        what: name of the tree, for the error.

    Raises:
        FederationError: the arrays are not those of `like`.
    """
    leaves, structure = jax.tree.flatten(like)
    found = record.to_numpy_ndarrays()
    # NumPy writes bfloat16 as two bytes without a type.
    found = [
        leaf.view(other.dtype) if leaf.dtype.kind == "V" and leaf.itemsize == other.dtype.itemsize else leaf
        for leaf, other in zip(found, leaves, strict=False)
    ] + found[len(leaves) :]
    shapes, wanted = ([f"{leaf.dtype}{list(leaf.shape)}" for leaf in side] for side in (found, leaves))
    if shapes != wanted:
        place = next(
            (i for i, pair in enumerate(zip(shapes, wanted, strict=False)) if len(set(pair)) > 1), None
        )
        differ = (
            f"{len(shapes)} arrays where {len(wanted)} are wanted"
            if place is None
            else f"{shapes[place]} as array {place} where {wanted[place]} is wanted"
        )
        raise FederationError(
            f"{what}: {differ}. Server and clients need the same objective, algorithm and optimizer"
        )
    return jax.tree.unflatten(structure, found)


class Answer(NamedTuple):
    """A client's answer to a round.

    Attributes:
        report: on the client, scalars.
        message: of the algorithm, NumPy arrays; zero where the client does not count.
        change: of the objective's state.
        sums: name -> (total, weight) over the client's steps.
        steps, step_slots: as of `round.RoundOutcome`.
    """

    report: ClientReport
    message: PyTree
    change: PyTree
    sums: dict[str, tuple[Any, Any]]
    steps: int
    step_slots: int


def pack_answer(answer: Answer) -> Any:
    """Make Flower's RecordDict of an answer. A client that does not count sends no arrays."""
    app = import_flwr().app
    report = {name: float(value) for name, value in answer.report._asdict().items()}
    about = {"steps": answer.steps, "step-slots": answer.step_slots}
    records = {"report": app.MetricRecord(report), "about": app.ConfigRecord(about)}
    if answer.report.verdict == Verdict.ACCEPTED:
        sums = {
            f"{place}/{name}": app.Array(np.asarray(value))
            for name, pair in answer.sums.items()
            for place, value in enumerate(pair)
        }
        records |= {
            "message": pack(answer.message),
            "change": pack(answer.change),
            "sums": app.ArrayRecord(sums),
        }
    return app.RecordDict(records)


def unpack_answer(content: Any, message: PyTree, change: PyTree, what: str) -> Answer:
    """Read an answer. One whose arrays are not finite does not count, whatever the client says of it.

    Args:
        content: from `pack_answer`.
        message, change: like the arrays.
        what: name of the client, for the error.

    Raises:
        FederationError: the arrays are those of another model or algorithm.
    """
    report = ClientReport._make(np.float32(content["report"][name]) for name in ClientReport._fields)
    report = report._replace(verdict=np.int32(report.verdict))
    about = content["about"]
    nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (message, change))
    refused = Answer._make((report, *nothing, {}, about["steps"], about["step-slots"]))
    if report.verdict != Verdict.ACCEPTED:
        return refused
    sent = unpack(content["message"], message, f"the message of {what}")
    changed = unpack(content["change"], change, f"the objective's state from {what}")
    if not all_finite((sent, changed, report.log_weight)):
        lost = report._replace(verdict=np.int32(Verdict.NOT_FINITE), log_weight=np.float32(-np.inf))
        return refused._replace(report=lost)
    arrays = {name: value.numpy() for name, value in content["sums"].items()}
    names = [name.removeprefix("0/") for name in arrays if name.startswith("0/")]
    sums = {name: (arrays[f"0/{name}"], arrays[f"1/{name}"]) for name in names}
    return refused._replace(message=sent, change=changed, sums=sums)


def all_finite(tree: PyTree) -> bool:
    """Tell whether all numbers of a tree of NumPy arrays are finite."""
    return all(
        bool(np.isfinite(leaf).all())
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    )


def leaves_read(training: LocalTraining, algorithm: Algorithm, parameters: PyTree) -> list[bool]:
    """Find the leaves of the algorithm's state on the server that clients read: only these are sent.

    FedAvg's clients read none, even where a server optimizer has moments.

    Args:
        training, algorithm: of the clients.
        parameters: arrays or abstract arrays.
    """
    one, key = jnp.float32(1.0), jax.random.key(0)

    def client_round(parameters: PyTree, state: PyTree) -> PyTree:
        server = Server(parameters, state)
        kept = () if algorithm.client_init is None else algorithm.client_init(training, parameters)
        begun = algorithm.begin(training, server, kept)
        sums: Any = collections.defaultdict(lambda: (one, one))
        step = LocalStep(begun.parameters, parameters, server, lambda there: (there, sums))
        direction, memory = algorithm.gradient(step, begun.memory)
        trained = Trained(begun.parameters, begun.optimizer_state, memory, server, one, one, key)
        return begun, direction, algorithm.message(trained)

    state = jax.eval_shape(algorithm.server_init, parameters)
    traced = jax.make_jaxpr(client_round)(parameters, state).jaxpr
    used = {id(value) for equation in traced.eqns for value in equation.invars} | set(map(id, traced.outvars))
    return [id(value) in used for value in traced.invars[len(jax.tree.leaves(parameters)) :]]


def select(state: PyTree, read: list[bool]) -> list[Any]:
    """Select the leaves that clients read."""
    return [leaf for leaf, wanted in zip(jax.tree.leaves(state), read, strict=True) if wanted]


def fill(leaves: list[Any], like: PyTree, read: list[bool]) -> PyTree:
    """Make the algorithm's state from the leaves that clients read; the others are zero."""
    given = iter(leaves)
    found, structure = jax.tree.flatten(like)
    filled = [
        next(given) if wanted else np.zeros(leaf.shape, leaf.dtype)
        for leaf, wanted in zip(found, read, strict=True)
    ]
    return jax.tree.unflatten(structure, filled)

"""Try an objective, a source, an algorithm and an optimizer on two tiny rounds, and say what is broken.

Every complaint is one line that names what is wrong and what would be right.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fed import server, simulation
from fed.algorithm import Algorithm
from fed.check.source import MAX_STEPS, Broken, Few, called, kind
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.keys import client_number, round_key, step_key
from fed.protocols import PyTree

RATE = 1e-3
SLOPE_TOLERANCE = 0.05  # float32 differences of a loss are good to about a hundredth
LAYOUT_TOLERANCE = 1e-3


def check(
    objective: Any,
    source: Any,
    algorithm: Any = None,
    optimizer: Any = None,
) -> list[str]:
    """Check that a federated run can work, on at most three clients and two steps of each.

    Args:
        objective: `protocols.Objective`.
        source: `protocols.ClientSource`.
        algorithm: `fed.algorithm.Algorithm`; None takes FedAvg.
        optimizer: of the clients, an optax transformation without its learning rate; None takes plain SGD.

    Returns:
        Complaints, a line each; none if everything holds. A contract that is broken so that others cannot be
        tried ends the list.
    """
    found: list[str] = []
    try:
        for complaint in _complaints(
            objective,
            source,
            Algorithm() if algorithm is None else algorithm,
            optax.identity() if optimizer is None else optimizer,
        ):
            found.append(complaint)
    except Broken as broken:
        found.append(str(broken))
    return found


def _complaints(objective: Any, source: Any, algorithm: Any, optimizer: Any) -> Iterator[str]:
    parameters, state = _initial(objective)
    few = Few(source)
    batch = few.first_batch()
    gradients, sums = _step(objective, parameters, state, batch)
    yield from _on_sums(sums)
    yield from _on_values(objective, parameters, state, batch, gradients, sums)
    yield from _on_optimizer(optimizer, parameters, gradients)
    yield from _on_rounds(objective, few, algorithm, optimizer)


def _initial(objective: Any) -> tuple[PyTree, PyTree]:
    for name in ("init", "value_and_grad"):
        if not callable(getattr(objective, name, None)):
            raise Broken(f"the objective has no function {name}: see fed.protocols.Objective")
    made = called("objective.init(key)", objective.init, jax.random.key(0))
    if not isinstance(made, tuple) or len(made) != 2:
        raise Broken(
            f"objective.init returns {kind(made)}: it has to return (parameters, state); without a state "
            "return (parameters, {})"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(made[0]):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise Broken(
                f"parameter {_name(path)} is {jnp.result_type(leaf)}: parameters have to be floats; put "
                "counts into the objective's state"
            )
    if not jax.tree.leaves(made[0]):
        raise Broken("objective.init returns no parameters: there is nothing to train")
    return made


def _step(objective: Any, parameters: PyTree, state: PyTree, batch: PyTree) -> tuple[PyTree, Any]:
    key = step_key(round_key(0, 0), np.uint32(client_number("check")), np.int32(0))
    found = called(
        "objective.value_and_grad(parameters, state, batch, key, step)",
        *(objective.value_and_grad, parameters, state, batch, key, np.int32(0)),
    )
    if not isinstance(found, tuple) or len(found) != 3:
        raise Broken(
            f"objective.value_and_grad returns {kind(found)}: it has to return (gradients, state, sums); "
            "jax.value_and_grad returns the value first"
        )
    gradients, new_state, sums = found
    _same_shapes("gradients", gradients, "the parameters", parameters)
    _same_shapes("the state that value_and_grad returns", new_state, "the state that init returns", state)
    return gradients, sums


def _same_shapes(what: str, found: PyTree, like: str, wanted: PyTree) -> None:
    """Compare two trees, leaf by leaf."""
    held = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        name = _name(path)
        if name not in held:
            raise Broken(f"{what} lack {name}: they have to have the structure of {like}")
        other = held.pop(name)
        if jnp.shape(other) != jnp.shape(leaf) or jnp.result_type(other) != jnp.result_type(leaf):
            raise Broken(
                f"{what}: {name} is {_array(other)} where {like} have {_array(leaf)}: shapes and dtypes have "
                "to agree"
            )
    if held:
        raise Broken(f"{what} have {next(iter(held))}, which {like} lack")


def _on_sums(sums: Any) -> Iterator[str]:
    if not isinstance(sums, dict) or "loss" not in sums:
        names = ", ".join(map(str, sums)) if isinstance(sums, dict) else kind(sums)
        raise Broken(
            f'sums have no "loss" (they are {names or "empty"}): return {{"loss": (total, weight)}}, such as '
            "the loss summed over examples and their number"
        )
    for name, pair in sums.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise Broken(f"sums[{name!r}] is {kind(pair)}: it has to be a pair (total, weight)")
    if any(jnp.shape(part) for part in sums["loss"]):
        raise Broken('sums["loss"] is a pair of arrays: it has to be a pair of scalars (total, weight)')
    total, weight = (float(part) for part in sums["loss"])
    if not math.isfinite(total):
        yield f"the loss of the first batch is {total}: look at its data, or at the initial parameters"
    if not weight > 0:
        yield f"the loss of the first batch has weight {weight:g}: a client without weight is left out"


def _on_values(
    objective: Any, parameters: PyTree, state: PyTree, batch: PyTree, gradients: PyTree, sums: dict
) -> Iterator[str]:
    again, sums_again = _step(objective, parameters, state, batch)
    pairs = zip(jax.tree.leaves((gradients, sums)), jax.tree.leaves((again, sums_again)), strict=True)
    if any(np.asarray(one).tobytes() != np.asarray(other).tobytes() for one, other in pairs):
        raise Broken(
            "value_and_grad gives two results for the same arguments: take all chance from its key, so that "
            "runs can be repeated"
        )
    norm = float(optax.tree.norm(gradients))
    if not math.isfinite(norm) or norm == 0:
        yield f"the gradients of the first batch have norm {norm:g}: nothing can be learnt from them"
        return
    direction = jax.tree.map(lambda leaf: leaf / norm, gradients)

    def loss(length: float) -> float:
        moved = jax.tree.map(lambda p, d: p + jnp.asarray(length, p.dtype) * d, parameters, direction)
        total, weight = _step(objective, moved, state, batch)[1]["loss"]
        return float(total / weight)

    # The best of three lengths: a long one meets curvature, and a short one meets rounding.
    slopes = [(loss(length) - loss(-length)) / (2 * length) for length in (1e-1, 1e-2, 1e-3)]
    slope = min(slopes, key=lambda value: abs(value - norm))
    if abs(slope - norm) > SLOPE_TOLERANCE * norm:
        yield (
            f"the gradients are not those of the mean loss in sums: along them the loss changes by "
            f"{slope:.3g} and they say {norm:.3g}; divide both by the same weight"
        )


def _on_optimizer(optimizer: Any, parameters: PyTree, gradients: PyTree) -> Iterator[str]:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise Broken(
            f"the optimizer is {kind(optimizer)}: it has to be an optax transformation, such as "
            "optax.scale_by_adam()"
        )
    state = called("optimizer.init(parameters)", optimizer.init, parameters)

    def update() -> tuple[PyTree, PyTree]:
        # optax's own arithmetic fails under strict dtype and rank promotion.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return optimizer.update(gradients, state, parameters)

    updates, _ = called("optimizer.update(gradients, state, parameters)", update)
    pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(gradients), strict=True)
    along = sum(float(jnp.vdot(update, gradient)) for update, gradient in pairs)
    if along < 0:
        yield (
            "the optimizer points against the gradient: it has its learning rate already, and training "
            "would climb; pass it without, such as optax.scale_by_adam() for optax.adam(rate), and give the "
            "rate to LocalTraining"
        )


def _on_rounds(objective: Any, few: Few, algorithm: Any, optimizer: Any) -> Iterator[str]:
    """Run two rounds one by one and vmapped; they have to agree."""
    if not isinstance(algorithm, Algorithm):
        raise Broken(
            f"the algorithm is {kind(algorithm)}: it has to be a fed.algorithm.Algorithm, such as "
            "fed.algorithms.scaffold()"
        )
    one = called("a round", _rounds, objective, few, algorithm, optimizer, Layout(1, 1))
    if one.not_finite and len(one.skipped) < len(one.clients):
        yield (
            f"the update or message of client {one.not_finite[0]} is not finite and does not count: look at "
            "its data, and at the algorithm's message"
        )
    if one.skipped and len(one.skipped) == len(one.clients):
        yield (
            f"no client's update counted in a round ({len(one.not_finite)} of {len(one.clients)} are not "
            "finite): look at the algorithm's message and log weight"
        )
        return
    if len(few.client_ids()) == 1:
        return
    both = called("a vmapped round", _rounds, objective, few, algorithm, optimizer, Layout(1, 2))
    size = float(optax.tree.norm(one.server.parameters))
    gap = float(optax.tree.norm(jax.tree.map(np.subtract, one.server.parameters, both.server.parameters)))
    if gap > LAYOUT_TOLERANCE * max(size, 1e-6):
        yield (
            f"two clients side by side end {gap / max(size, 1e-6):.1e} of the model's norm away from one by "
            "one: a function depends on more than its arguments, or on the order of clients"
        )


def _rounds(
    objective: Any, few: Few, algorithm: Algorithm, optimizer: optax.GradientTransformation, layout: Layout
) -> simulation.RoundResult:
    run = simulation.Simulation(
        LocalTraining(objective, optimizer, lambda step: jnp.float32(RATE)),
        algorithm,
        few,
        lambda index: list(few.client_ids()),
        layout,
        seed=0,
        steps_per_round=MAX_STEPS,
        warn=lambda text: None,
    )
    state = server.init(objective, algorithm, jax.random.key(0))
    results = [r._replace(server=jax.device_get(r.server)) for r in simulation.run(run, state, 2)]
    return results[-1]


def _array(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")

"""Train a head and its encoder: two optimizers, learning rates given at run time, NewBob annealing."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from w2v_jax.batch import LabelledBatch, Sums, Total
from w2v_jax.objective.pretraining import Objective, Parameters

HeadOptimizer = Literal["adadelta", "adam"]
Rates = Mapping[str, Float[Array, ""] | float]


class TrainingState(NamedTuple):
    """The state of fine-tuning: parameters, running statistics and optimizer state."""

    parameters: Parameters
    statistics: Parameters
    optimizer_state: optax.OptState


def make_optimizer(head: HeadOptimizer, clip_norm: float) -> optax.GradientTransformation:
    """Make the optimizer: Adam with fairseq's betas on the encoder, Adadelta or Adam on the head.

    Adadelta has rho 0.95 and eps 1e-8. It has no learning rates: `make_update` takes them at every update.
    """
    of_head = optax.scale_by_adadelta(rho=0.95, eps=1e-8) if head == "adadelta" else optax.scale_by_adam()
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.partition(
            {"encoder": optax.scale_by_adam(b1=0.9, b2=0.98), "head": of_head},
            {"encoder": "encoder", "head": "head"},
        ),
    )


def initial_state(
    objective: Objective, optimizer: optax.GradientTransformation, key: Key[Array, ""]
) -> TrainingState:
    """Make the parameters, running statistics and optimizer state before the first update.

    Args:
        objective: of a recognizer or a keyword spotter.
        optimizer: of `make_optimizer`.
        key: of the initial parameters.
    """
    parameters, statistics = objective.init(key)
    return TrainingState(parameters, statistics, optimizer.init(parameters))


def make_update(objective: Objective, optimizer: optax.GradientTransformation) -> Callable:
    """Make the update: (state, batch, key, rates by group) -> (state, sums).

    An update whose gradients are not finite changes nothing; `sums["skipped"]` counts it.
    """

    def update(
        state: TrainingState, batch: LabelledBatch, key: Key[Array, ""], rates: Rates
    ) -> tuple[TrainingState, Sums]:
        gradients, statistics, sums = objective.value_and_grad(
            state.parameters, state.statistics, batch, key, 0
        )
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            directions, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.parameters)
        directions = cast(Parameters, directions)
        parameters = {
            group: jax.tree.map(
                lambda value, direction, rate=rates[group]: value - rate * direction,
                state.parameters[group],
                directions[group],
            )
            for group in state.parameters
        }
        finite = jnp.isfinite(optax.tree.norm(gradients))
        new = TrainingState(parameters, statistics, optimizer_state)
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        counted = jax.tree.map(lambda value: jnp.where(finite, value, jnp.zeros_like(value)), sums)
        skipped = (~finite).astype(jnp.float32)
        return kept, {**counted, "skipped": Total(skipped, jnp.float32(1.0))}

    return update


def make_statistics_update(objective: Objective) -> Callable:
    """Make a function that computes running statistics after a batch, without training.

    Its arguments are (parameters, statistics, batch, key).

    The averages lag behind an encoder that moves. Some batches before a validation give the statistics of the
    current parameters (precise batch normalisation: Wu and Johnson 2021, section 3). jit leaves the unused
    gradients out.
    """

    def update(parameters: Parameters, statistics: Parameters, batch: LabelledBatch, key: Key[Array, ""]):
        return objective.value_and_grad(parameters, statistics, batch, key, 0)[1]

    return update


@dataclasses.dataclass
class NewBob:
    """Scales of the learning rates, which fall whenever the validation loss improves by too little.

    Factors, threshold and patience 0 are those of SpeechBrain's Italian recipe.
    """

    factors: dict[str, float] = dataclasses.field(default_factory=lambda: {"encoder": 0.9, "head": 0.8})
    threshold: float = 0.0025
    scales: dict[str, float] = dataclasses.field(default_factory=lambda: {"encoder": 1.0, "head": 1.0})
    previous: float | None = None

    def observe(self, loss: float) -> None:
        """Update the scales by a validation loss."""
        if self.previous is not None and np.isfinite(loss):
            improvement = (self.previous - loss) / abs(self.previous) if self.previous else 0.0
            if improvement < self.threshold:
                self.scales = {name: scale * self.factors[name] for name, scale in self.scales.items()}
        if np.isfinite(loss):
            self.previous = loss


def tri_stage(update: int, total: int, warmup: float = 0.1, hold: float = 0.4, final: float = 0.05) -> float:
    """Compute fairseq's schedule as a share of the peak rate: linear rise, constant, exponential fall.

    Args:
        update: from 0.
        total: updates of the run.
        warmup, hold: shares of the run, between 0 and 1.
        final: share of the peak rate at the end.
    """
    rise, flat = max(1.0, warmup * total), hold * total
    if update < rise:
        return (update + 1) / rise
    if update < rise + flat:
        return 1.0
    fall = max(1.0, total - rise - flat)
    return float(final ** min(1.0, (update - rise - flat) / fall))

"""Optax transformations and learning-rate schedules from training settings."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from w2v_jax.config import OptimizerName
from w2v_jax.platforms import lowered_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The settings of the client optimizer. Steps are global updates: round x local steps + step."""

    name: OptimizerName = "adamw"
    learning_rate: float = 5e-4
    warmup_steps: int = 32_000
    total_steps: int = 400_000
    final_share: float = 0.0  # share of the peak rate that is left at total_steps
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    state_dtype: Literal["float32", "bfloat16"] = "float32"  # of the first moment
    frozen: tuple[str, ...] = ()  # top-level names of the parameters that are not trained


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Build the transformation without its learning rate; the caller scales its updates by -rate."""
    clip = [clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    made = optax.chain(*clip, *_scaling(config))
    if not config.frozen:
        return made

    def labels(parameters):
        return {name: "frozen" if name in config.frozen else "trained" for name in parameters}

    return optax.partition({"trained": made, "frozen": optax.set_to_zero()}, labels)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Clip updates by their global norm, as optax does except for rounding.

    On a CPU this version allocates no array of a parameter's size. XLA would otherwise write all squares of
    an array before it adds them up, and all quotients before it uses them: 113 MB for base.
    """

    def update(updates, state, params=None):
        del params
        squares = [_squared_norm(leaf) for leaf in jax.tree.leaves(updates)]
        norm = jnp.sqrt(jnp.stack(squares).sum())
        scale = jnp.where(norm < limit, 1.0, limit / norm)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _squared_norm(leaf: jax.Array) -> jax.Array:
    """Sum the squares of an array; on a CPU, arrays of 3 or more axes are summed along the first in turn."""
    if leaf.ndim < 3 or lowered_for() != "cpu":
        return jnp.square(leaf).sum()
    return jax.lax.map(lambda row: jnp.square(row).sum(), leaf).sum()


def _scaling(config: OptimizerConfig) -> list[optax.GradientTransformation]:
    dtype = jnp.dtype(config.state_dtype)
    decay = optax.add_decayed_weights(config.weight_decay)
    if config.name == "sgd":
        return [optax.identity()]
    if config.name == "lion":
        return [optax.scale_by_lion(b1=config.beta1, b2=config.beta2, mu_dtype=dtype), decay]
    if config.name == "adafactor":
        return [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), decay]
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon, mu_dtype=dtype)
    return [adam, decay]


def make_learning_rate(config: OptimizerConfig) -> Callable[[jax.Array], jax.Array]:
    """Build the schedule: linear warm-up, then linear decay (fairseq's polynomial decay of power 1)."""
    warmup = max(config.warmup_steps, 1)
    rest = max(config.total_steps - config.warmup_steps, 1)

    def rate(step: jax.Array) -> jax.Array:
        now = step.astype(jnp.float32) + 1.0
        rise = now / warmup
        fall = 1.0 - (1.0 - config.final_share) * (now - warmup) / rest
        return config.learning_rate * jnp.clip(
            jnp.minimum(rise, jnp.maximum(fall, config.final_share)), 0.0, 1.0
        )

    return rate

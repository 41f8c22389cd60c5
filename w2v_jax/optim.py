"""Training settings -> optax transformations and schedules."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The client optimizer. Steps are global updates: round x local steps + step."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-4
    warmup_steps: int = 32_000
    total_steps: int = 400_000
    final_share: float = 0.0  # of the peak rate, reached linearly at total_steps
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The transformation without its learning rate; its updates are to be scaled by -rate."""
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.name == "sgd":
        return optax.chain(*clip, optax.identity())
    return optax.chain(
        *clip,
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
    )


def make_learning_rate(config: OptimizerConfig) -> Callable[[jax.Array], jax.Array]:
    """Linear warm-up to the peak, then linear decay (fairseq's polynomial decay of power 1)."""
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

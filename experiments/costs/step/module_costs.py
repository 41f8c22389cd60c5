"""Costs of one training step by module and layer, for `profile` and the paper's figures."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal

import jax

from experiments.costs.step.eager_model import trace
from experiments.costs.step.training_step import TrainingStep, tree_bytes
from profiling import flops, residuals
from profiling.eager_memory import Backend, Precision, Tape
from profiling.flops import Cost
from profiling.traffic import Traffic, traffic
from w2v_jax.config import ModelConfig

QUANTIZATION = ("quantizer", "project_context", "project_quantized", "prediction")
LOG_MEL = "log_mel"
OTHER = "losses and draws"


def layer_names(config: ModelConfig) -> list[str]:
    """Return the rows of every table, in the order of the forward pass."""
    return [
        *([LOG_MEL] if config.front_end == "log-mel" else []),
        *(f"conv_layers_{index}" for index in range(len(config.conv_channels))),
        "feature_projection",
        "positional",
        *(f"layers_{index}" for index in range(config.num_layers)),
        "quantization",
        OTHER,
        "optimizer",
    ]


def module_of(layer: str) -> str:
    """Return the module of Table 1 that a layer belongs to; log-mel spectra stand where the CNN does."""
    if layer.startswith("conv_layers") or layer in (LOG_MEL, "feature_projection"):
        return "cnn_encoder"
    if layer.startswith("layers") or layer == "positional":
        return "transformer"
    return layer


def layer_of(scope: str) -> str:
    """Return the row of a name scope; "layers" for the whole stack, which a scan computes."""
    parts = scope.split("/")
    for part in parts:
        if part.startswith(("conv_layers_", "layers_")) or part in (
            LOG_MEL,
            "feature_projection",
            "positional",
            "layers",
            "optimizer",
        ):
            return part
        if part in QUANTIZATION:
            return "quantization"
    if "context_network" in parts:
        return "layers"  # the scan itself, its keys, the first or last norm
    return "conv_layers_0" if "feature_encoder" in parts else OTHER


def by_layer(pairs: Iterable[tuple[str, Any]], config: ModelConfig, zero: Any) -> dict[str, Any]:
    """Sum (scope, amount) pairs over layers; amounts of the whole stack are split evenly over its layers.

    Args:
        pairs: amounts are integers or dataclasses of integers; their sum is kept exactly.
        config: the model.
        zero: an amount of zero.
    """
    rows = dict.fromkeys(layer_names(config), zero)
    stack = zero
    for scope, amount in pairs:
        layer = layer_of(scope)
        if layer == "layers":
            stack = stack + amount
        else:
            rows[layer] = rows[layer] + amount
    for index, share in enumerate(_split_evenly(stack, config.num_layers)):
        rows[f"layers_{index}"] = rows[f"layers_{index}"] + share
    return rows


def _split_evenly(amount: Any, count: int) -> list[Any]:
    """Split an amount into `count` parts that are as equal as integers allow."""
    if isinstance(amount, int):
        return [amount // count + (index < amount % count) for index in range(count)]
    columns = [_split_evenly(value, count) for value in dataclasses.astuple(amount)]
    return [type(amount)(*values) for values in zip(*columns, strict=True)]


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Costs of a step, by layer.

    Attributes:
        forward, backward: operations; the optimizer counts as forward.
        moved: bytes read and written, forward and backward.
        residual_bytes: bytes of tensors kept for the backward pass.
        residual_parts: residual bytes of all transformer layers together, by part of a layer.
        parameter_counts: number of trained parameters.
        unpriced: primitives that no row counts.
    """

    forward: dict[str, Cost]
    backward: dict[str, Cost]
    moved: dict[str, Traffic]
    residual_bytes: dict[str, int]
    residual_parts: dict[str, int]
    parameter_counts: dict[str, int]
    unpriced: dict[str, int]

    @property
    def total(self) -> Cost:
        """Return the operations of the whole step."""
        return sum((*self.forward.values(), *self.backward.values()), Cost())


def step_costs(config: ModelConfig, step: TrainingStep) -> StepCosts:
    """Price a step by tracing it; nothing is compiled or run."""
    report = flops.count(step.function, *step.arguments)

    def directed(direction: Literal["forward", "backward"]) -> dict[str, Cost]:
        rows = ((scope, cost) for (scope, d), cost in report.rows.items() if d == direction)
        return by_layer(rows, config, Cost())

    moved = traffic(step.function, *step.arguments)
    kept = residuals.residuals(step.loss, step.parameters, *step.arguments[1:])
    return StepCosts(
        forward=directed("forward"),
        backward=directed("backward"),
        moved=by_layer(((scope, value) for (scope, _), value in moved.rows.items()), config, Traffic()),
        residual_bytes=by_layer(kept.rows.items(), config, 0),
        residual_parts=_parts(kept.rows),
        parameter_counts=parameter_counts(config, step.parameters),
        unpriced=report.unpriced,
    )


def parameter_counts(config: ModelConfig, parameters: Any) -> dict[str, int]:
    """Count trained parameters by layer; those of stacked layers are split over the layers."""
    leaves = jax.tree_util.tree_flatten_with_path(parameters)[0]
    pairs = (("/".join(str(key.key) for key in path), math.prod(leaf.shape)) for path, leaf in leaves)
    return by_layer(pairs, config, 0)


def _parts(rows: dict[str, int]) -> dict[str, int]:
    """Sum the bytes of the stack of layers by attention, feed-forward, and norms and sums."""
    found: dict[str, int] = {}
    for scope, size in rows.items():
        if layer_of(scope) == "layers":
            part = next((p for p in scope.split("/") if p in ("attention", "feed_forward")), "norms and sums")
            found[part] = found.get(part, 0) + size
    return found


def eager_bytes(
    config: ModelConfig,
    batch: int,
    samples: int,
    precision: Precision = "fp32",
    backend: Backend = "cpu",
) -> dict[str, int]:
    """Count the bytes that an eager framework keeps, by layer, without parameters (accounting `autograd`)."""
    return by_layer(trace(config, batch, samples, Tape(precision, backend)).rows.items(), config, 0)


def attention_bytes(config: ModelConfig, batch: int, samples: int, backend: Backend = "cpu") -> int:
    """Count the bytes of `eager_bytes` in fp32 in tensors of frames x frames; fused attention keeps none."""
    frames = config.num_frames(samples)
    noise = 0 if config.attention_dropout == 0 else 4 + (4 if backend == "cpu" else 1)
    return config.num_layers * config.num_heads * batch * frames * frames * (4 + noise)


def standing_bytes(step: TrainingStep) -> dict[str, int]:
    """Count the bytes that do not depend on the batch: parameters, their gradients, optimizer state."""
    parameters = tree_bytes(step.parameters)
    return {
        "parameters": parameters,
        "gradients": parameters,
        "optimizer_state": tree_bytes(step.optimizer_state),
    }

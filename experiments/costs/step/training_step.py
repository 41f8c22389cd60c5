"""One training step as a function of abstract arrays, to be priced, compiled or exported."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jmp

from w2v_jax import memory_methods
from w2v_jax.batch import Batch
from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ, ModelConfig, OptimizerName
from w2v_jax.errors import UserError
from w2v_jax.objective.pretraining import pretraining_objective
from w2v_jax.optim import OptimizerConfig, make_optimizer

Precision = Literal["fp32", "bf16", "fp16"]
COMPUTE_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
LEARNING_RATE = 1e-4
STATELESS = ("sgd", "adafactor")  # optimizers without a first moment
INITIAL_LOSS_SCALE = 2.0**15


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Settings of a training step; `method` holds names of w2v_jax.memory_methods, separated by commas."""

    model: str
    seconds: float
    batch: int
    precision: Precision = "fp32"
    method: str = memory_methods.PLAIN
    optimizer: OptimizerName = "adamw"

    @property
    def samples(self) -> int:
        """Return the number of samples of each utterance."""
        return round(self.seconds * SAMPLE_RATE_HZ)

    @property
    def config(self) -> ModelConfig:
        """Return the model's configuration under this precision and method."""
        config = PRESETS[self.model].replace(compute_dtype=COMPUTE_DTYPES[self.precision])
        return memory_methods.configured(config, self.method)

    @property
    def optimizer_config(self) -> OptimizerConfig:
        """Return the optimizer's configuration under this method."""
        return OptimizerConfig(name=self.optimizer, **memory_methods.optimizer_changes(self.method))

    def describe(self) -> str:
        """Describe the step in one line."""
        method = "" if self.method == memory_methods.PLAIN else f", {self.method}"
        return (
            f"{self.model}, batch {self.batch} x {self.seconds:g} s, {self.precision}{method}, "
            f"{self.optimizer}"
        )


class LossScale(NamedTuple):
    """State of jmp's dynamic loss scale; jmp's own record does not survive `lower`."""

    scale: jax.Array
    good_steps: jax.Array


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """A step and its abstract arguments.

    Attributes:
        function: (state, batch, key, step) -> (state, loss). `state` is (parameters, optimizer state), in
            fp16 also a LossScale; callers donate it.
        arguments: trees of jax.ShapeDtypeStruct.
        loss: (parameters, batch, key, step) -> scalar; the forward pass alone.
        begin: key -> the first state.
    """

    function: Callable
    arguments: tuple[Any, ...]
    loss: Callable
    begin: Callable

    @property
    def parameters(self) -> Any:
        """Return the abstract parameters."""
        return self.arguments[0][0]

    @property
    def optimizer_state(self) -> Any:
        """Return the abstract optimizer state."""
        return self.arguments[0][1]

    def compile(self, **options: Any) -> Any:
        """Compile the step for this process's backend, with the state donated."""
        return jax.jit(self.function, donate_argnums=0).lower(*self.arguments).compile(**options)


def abstract_batch(batch: int, samples: int, *leading: int) -> Batch:
    """Return an abstract batch of whole utterances, [*leading, batch, samples]."""
    return Batch._make(
        (
            jax.ShapeDtypeStruct((*leading, batch, samples), jnp.float32),
            jax.ShapeDtypeStruct((*leading, batch), jnp.int32),
            jax.ShapeDtypeStruct((*leading, batch), jnp.uint32),
        )
    )


def noise_batch(settings: StepSettings) -> Batch:
    """Return a batch of whole utterances of noise, with random numbers of their own."""
    waveform = 0.1 * jax.random.normal(jax.random.key(0), (settings.batch, settings.samples))
    lengths = jnp.full(settings.batch, settings.samples, jnp.int32)
    return Batch(waveform, lengths, jnp.arange(settings.batch, dtype=jnp.uint32))


def abstract_key() -> Any:
    """Return an abstract random key."""
    return jax.eval_shape(lambda: jax.random.key(0))


def build(settings: StepSettings, config: ModelConfig | None = None) -> TrainingStep:
    """Build the step of these settings, with a fixed learning rate; nothing is computed.

    In fp16 the loss is scaled dynamically (Micikevicius et al., ICLR 2018), and a step whose gradients are
    not finite changes only the scale.

    Args:
        settings: the settings.
        config: replaces the configuration that the settings give.

    Raises:
        UserError: the method does not go with the optimizer or the precision.
    """
    config = config or settings.config
    objective, optimizer = pretraining_objective(config), make_optimizer(settings.optimizer_config)
    _check(settings, config)

    def step(state, batch, key, index):
        parameters, optimizer_state = state
        gradients, _, sums = objective.value_and_grad(parameters, {}, batch, key, index)
        with jax.named_scope("optimizer"):
            state = _update(optimizer, gradients, optimizer_state, parameters)
        return state, _mean_loss(sums)

    def descending_step(state, batch, key, index):
        assert objective.descend is not None
        parameters, optimizer_state = state
        rate = jnp.float32(LEARNING_RATE)
        parameters, _, sums = objective.descend(parameters, {}, batch, key, index, rate)
        return (parameters, optimizer_state), _mean_loss(sums)

    def scaled_step(state, batch, key, index):
        parameters, optimizer_state, before = state
        scale = jmp.DynamicLossScale(before.scale, before.good_steps)

        gradients, _, sums = objective.value_and_grad(parameters, {}, batch, key, index, scale.loss_scale)
        with jax.named_scope("optimizer"):
            gradients = scale.unscale(gradients)
            finite = jmp.all_finite(gradients)
            updated = _update(optimizer, gradients, optimizer_state, parameters)
            kept = jmp.select_tree(finite, updated, (parameters, optimizer_state))
            with jax.numpy_dtype_promotion("standard"):
                scale = scale.adjust(finite)
        return (*kept, LossScale(scale.loss_scale, scale.counter)), _mean_loss(sums)

    def loss(parameters, batch, key, index):
        return objective.training_loss(parameters, {}, batch, key, index)[0]

    def begin(key):
        parameters = objective.init(key)[0]
        state = (parameters, optimizer.init(parameters))
        return (*state, LossScale(jnp.float32(INITIAL_LOSS_SCALE), jnp.int32(0))) if scaled else state

    scaled = config.compute_dtype == "float16"
    state, batch = jax.eval_shape(begin, abstract_key()), abstract_batch(settings.batch, settings.samples)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    layerwise = memory_methods.is_layerwise(settings.method)
    function = descending_step if layerwise else scaled_step if scaled else step
    return TrainingStep(function, (state, batch, abstract_key(), index), loss, begin)


def _check(settings: StepSettings, config: ModelConfig) -> None:
    """Refuse combinations that do not work.

    Raises:
        UserError: the method does not go with the optimizer or the precision.
    """
    layerwise = memory_methods.is_layerwise(settings.method)
    if layerwise and settings.optimizer != "sgd":
        raise UserError(
            "--method layerwise needs --optimizer sgd: other optimizers read all gradients or keep a state"
        )
    if "state_dtype" in memory_methods.optimizer_changes(settings.method) and settings.optimizer in STATELESS:
        raise UserError(
            f"--method bf16-state needs --optimizer adamw or lion: {settings.optimizer} has no first moment"
        )
    if config.compute_dtype == "float16" and layerwise:
        raise UserError(
            "--method layerwise cannot undo a step, which fp16 needs: take --precision fp32 or bf16"
        )


def _update(optimizer: Any, gradients: Any, optimizer_state: Any, parameters: Any) -> tuple[Any, Any]:
    """Return the parameters and the optimizer state after one update."""
    # optax's own arithmetic does not pass strict dtype and rank promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
    return jax.tree.map(lambda p, u: p - LEARNING_RATE * u, parameters, updates), optimizer_state


def _mean_loss(sums: Any) -> jax.Array:
    """Return the mean loss of the masked frames; zero where no frame is masked."""
    total, weight = sums["loss"]
    return total / jnp.maximum(weight, 1.0)


def tree_bytes(tree: Any) -> int:
    """Count the bytes of a tree of arrays, abstract or not."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def tree_size(tree: Any) -> int:
    """Count the elements of a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

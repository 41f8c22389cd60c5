"""Models of the workloads in jax: initial parameters, the loss of a batch, and how a client trains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.rounds.peers.protocol import ADAM_EPSILON, Parameters, Work

# GPUs round fp32 products to 19 bits by default; all runners take full fp32.
jax.config.update("jax_default_matmul_precision", "highest")


class Model(NamedTuple):
    """A workload's model.

    Attributes:
        parameters: initial parameters, a pytree.
        loss: (parameters, batch) -> scalar.
        to_names: parameters -> NumPy arrays by the names of the work file.
    """

    parameters: Any
    loss: Callable[[Any, Any], jax.Array]
    to_names: Callable[[Any], Parameters]


def model(work: Work, form: str, precision: str = "fp32") -> Model:
    """Build the model of a work file, with its convolutions in the given form."""
    if work.kind in ("toy", "dense"):
        from experiments.bench.rounds.peers import toy_jax

        def loss(parameters, batch):
            if work.kind == "dense":
                return dense_loss(parameters, batch)
            return toy_jax.loss(parameters, batch, form)

        return Model(
            jax.tree.map(jnp.asarray, work.parameters),
            loss,
            lambda parameters: {name: np.asarray(value) for name, value in parameters.items()},
        )
    return speech(work, form, precision)


def speech(work: Work, form: str, precision: str = "fp32") -> Model:
    """Build wav2vec 2.0's loss; each batch holds every random choice."""
    from w2v_jax.config import ModelConfig
    from w2v_jax.interop import huggingface_names
    from w2v_jax.objective.pretraining import Draws, bind_model, loss_and_sums

    config = ModelConfig.from_dict(work.config).replace(
        convolution_form=form, compute_dtype="bfloat16" if precision == "bf16" else "float32"
    )
    _, apply = bind_model(config)

    def loss(parameters, batch):
        num_samples = jnp.full(batch["waveform"].shape[0], batch["waveform"].shape[1], jnp.int32)
        predictions, _ = apply(
            parameters,
            batch["waveform"],
            num_samples,
            batch["mask"],
            gumbel_noise=batch["noise"],
            gumbel_temperature=jnp.float32(config.gumbel_temperature_start),
        )
        draws = Draws(batch["mask"], batch["negatives"])
        return loss_and_sums(config, predictions, draws)[0]

    return Model(
        jax.tree.map(jnp.asarray, huggingface_names.from_state_dict(work.parameters, config)),
        loss,
        lambda parameters: huggingface_names.to_state_dict(jax.tree.map(np.asarray, parameters), config),
    )


def dense_loss(parameters, batch):
    """Compute the mean squared error of the model of products alone."""
    x = batch["x"]
    for index in range(len(parameters)):
        x = x @ parameters[f"layer{index}"]
        x = jax.nn.relu(x) if index + 1 < len(parameters) else x
    return jnp.square(x - batch["target"]).mean()


class LocalTraining(NamedTuple):
    """A client's training.

    Attributes:
        init: parameters -> state of the optimizer; plain SGD has ().
        step: ((parameters, state), batch) -> (parameters, state).
    """

    init: Callable[[Any], Any]
    step: Callable[[Any, Any], Any]

    def start(self, parameters: Any) -> Any:
        """Return the parameters and the optimizer state that a client starts with."""
        return parameters, self.init(parameters)


def local_training(workload: Model, work: Work) -> LocalTraining:
    """Build the training of the work file: plain SGD, or AdamW without decay."""
    gradient = jax.grad(workload.loss)
    if work.optimizer == "sgd":

        def plain_step(carried, batch):
            parameters, state = carried
            gradients = gradient(parameters, batch)
            return jax.tree.map(lambda p, g: p - work.learning_rate * g, parameters, gradients), state

        return LocalTraining(lambda parameters: (), plain_step)
    optimizer = adam(work)

    def step(carried, batch):
        parameters, state = carried
        updates, state = optimizer.update(gradient(parameters, batch), state, parameters)
        return jax.tree.map(jnp.add, parameters, updates), state

    return LocalTraining(optimizer.init, step)


def adam(work: Work) -> Any:
    """Build the optimizer of workloads with AdamW, without decay."""
    import optax

    return optax.adam(work.learning_rate, eps=ADAM_EPSILON)

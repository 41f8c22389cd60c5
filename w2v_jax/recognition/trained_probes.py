"""Probes trained by gradients: a small network of one hidden layer, and a learnt sum of layers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from w2v_jax.model.binding import Parameters
from w2v_jax.recognition.linear_probe import Standard

HIDDEN = 256
BATCH, LEARNING_RATE = 128, 1e-3
# Between two looks at dev lie whole epochs, and so many updates at least: few clips make short epochs.
LEAST_UPDATES = 50
MOST_LOOKS, PATIENCE_LOOKS = 40, 5

# Scores [clip, class] of features [clip, ...].
Scores = Callable[[Parameters, Array], Array]


class TrainedProbe(NamedTuple):
    """A classifier of clips after the update that did best on other clips.

    Attributes:
        scores: its function.
        parameters: NumPy.
        updates: updates that it was trained for.
        dev_accuracy: share of the clips that chose this number which it classifies rightly.
    """

    scores: Scores
    parameters: Parameters
    updates: int
    dev_accuracy: float

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Find the class of every clip, int [clip]; features as in training, standardised."""
        return np.asarray(_jitted(self.scores)(self.parameters, jnp.asarray(features))).argmax(1)


def mlp_scores(parameters: Parameters, x: Float[Array, "clip feature"]) -> Float[Array, "clip class"]:
    """Compute the scores of a network with one hidden layer of ReLUs."""
    hidden = jax.nn.relu(x @ parameters["hidden"] + parameters["hidden_bias"][None])
    return hidden @ parameters["output"] + parameters["output_bias"][None]


def weighted_sum_scores(
    parameters: Parameters, x: Float[Array, "clip layer feature"]
) -> Float[Array, "clip class"]:
    """Compute the scores of a linear map of the layers' sum, weighted by a softmax (SUPERB: 2105.01051)."""
    summed = jnp.einsum("l,clf->cf", jax.nn.softmax(parameters["layers"]), x)
    return summed @ parameters["output"] + parameters["output_bias"][None]


def mlp_probe(
    train: tuple[np.ndarray, np.ndarray], dev: tuple[np.ndarray, np.ndarray], num_classes: int, seed: int
) -> TrainedProbe:
    """Train a network with one hidden layer.

    Args:
        train: standardised features, [clip, feature], and classes, int [clip].
        dev: the same of other clips, which choose when to stop.
        num_classes: how many classes there are.
        seed: of initial parameters and batches.
    """
    size = train[0].shape[1]
    draws = np.random.default_rng((seed, 0))
    parameters = {
        "hidden": draws.normal(0.0, (2.0 / size) ** 0.5, (size, HIDDEN)),
        "hidden_bias": np.zeros(HIDDEN),
        "output": draws.normal(0.0, HIDDEN**-0.5, (HIDDEN, num_classes)),
        "output_bias": np.zeros(num_classes),
    }
    return _trained(mlp_scores, parameters, train, dev, seed)


def weighted_sum_probe(
    train: tuple[np.ndarray, np.ndarray], dev: tuple[np.ndarray, np.ndarray], num_classes: int, seed: int
) -> TrainedProbe:
    """Train a linear map of a weighted sum of layers, and the weights with it; they begin equal.

    Args:
        train: standardised features, [clip, layer, feature], and classes, int [clip].
        dev, num_classes, seed: as in `mlp_probe`.
    """
    layers, size = train[0].shape[1:]
    parameters = {
        "layers": np.zeros(layers),
        "output": np.zeros((size, num_classes)),
        "output_bias": np.zeros(num_classes),
    }
    return _trained(weighted_sum_scores, parameters, train, dev, seed)


def layer_weights(probe: TrainedProbe) -> list[float]:
    """Give the shares of the layers in a weighted sum; they add up to 1."""
    return [float(share) for share in jax.nn.softmax(jnp.asarray(probe.parameters["layers"]))]


def standardised(train: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Standardise features, [clip, feature], by the training clips; float32."""
    standard = Standard.of(train)
    return tuple(standard.apply(part).astype(np.float32) for part in (train, *others))


def _trained(scores: Scores, parameters: dict[str, np.ndarray], train, dev, seed: int) -> TrainedProbe:
    """Train by Adam until the accuracy on `dev` has not risen for some looks at it."""
    state: Any = {name: jnp.asarray(value, jnp.float32) for name, value in parameters.items()}
    optimizer_state = _optimizer().init(state)
    features, labels = jnp.asarray(train[0]), jnp.asarray(train[1], jnp.int32)
    batch = min(BATCH, len(labels))
    each = len(labels) // batch
    epochs = -(-LEAST_UPDATES // each)
    train_on, jitted = _training(scores, batch, epochs), _jitted(scores)
    best: TrainedProbe | None = None
    since_best = 0
    for look in range(1, MOST_LOOKS + 1):
        key = jax.random.fold_in(jax.random.key(seed), look)
        state, optimizer_state = train_on(state, optimizer_state, features, labels, key)
        accuracy = float((np.asarray(jitted(state, jnp.asarray(dev[0]))).argmax(1) == dev[1]).mean())
        since_best += 1
        if best is None or accuracy > best.dev_accuracy:
            best = TrainedProbe(scores, jax.device_get(state), look * epochs * each, accuracy)
            since_best = 0
        elif since_best == PATIENCE_LOOKS:
            break
    assert best is not None
    return best


@functools.cache
def _jitted(scores: Scores) -> Scores:
    return jax.jit(scores)


@functools.cache
def _optimizer() -> optax.GradientTransformation:
    return optax.adam(LEARNING_RATE)


@functools.cache
def _training(scores: Scores, batch: int, epochs: int) -> Callable:
    """Make the program of some epochs, each of whole batches in a new order."""

    def loss(parameters: Parameters, x: Array, labels: Int[Array, " clip"]) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(scores(parameters, x), labels).mean()

    def train(parameters: Parameters, optimizer_state, features: Array, labels: Array, key: Key[Array, ""]):
        orders = jax.vmap(lambda k: jax.random.permutation(k, len(labels)))(jax.random.split(key, epochs))
        order = orders[:, : len(labels) // batch * batch].reshape(-1, batch)

        def step(carry, chosen):
            parameters, optimizer_state = carry
            gradients = jax.grad(loss)(parameters, features[chosen], labels[chosen])
            updates, optimizer_state = _optimizer().update(gradients, optimizer_state, parameters)
            return (optax.apply_updates(parameters, updates), optimizer_state), None

        return jax.lax.scan(step, (parameters, optimizer_state), order)[0]

    def run(*arguments):
        # optax's own arithmetic fails under strict dtype and rank promotion.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return jitted(*arguments)

    jitted = jax.jit(train)
    return run

"""Algorithms that fedjax has equal fedjax's own over ten rounds, on the same batches."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server
from fed.algorithms.averaging import averaging, fedprox
from fed.algorithms.mime_lite import mime_lite
from fed.fedjax_compat import restore_removed_names
from tests.fed.algorithms.regression import COHORTS, RATE, STEPS, Objective, Source, simulate, vector

with warnings.catch_warnings():
    # fedjax 0.0.17 has an invalid escape sequence, and haiku touches deprecated jax names.
    warnings.simplefilter("ignore")
    import fedjax
    from fedjax.algorithms import fed_avg, fed_prox
    from fedjax.algorithms import mime_lite as fedjax_mime_lite

ROWS = 4  # of every batch
# fedjax weighs clients by their examples.
SOURCE = Source(weights=tuple(float(ROWS * steps) for steps in STEPS))
BATCHES = fedjax.ShuffleRepeatBatchHParams(batch_size=ROWS, num_epochs=1, skip_shuffle=True)
LOCAL = fedjax.optimizers.sgd(RATE)


def example_losses(parameters, batch, key):
    error = batch["x"] @ parameters["w"] + parameters["b"] - batch["y"]
    return 0.5 * jnp.square(error)


gradient = fedjax.grad(example_losses)


def averaged(optimizer):
    return fed_avg.federated_averaging(gradient, LOCAL, optimizer, BATCHES)


# name -> (ours, fedjax's)
PAIRS = {
    "fedavg": (averaging(), lambda: averaged(fedjax.optimizers.sgd(1.0))),
    "fedavgm": (
        averaging(server_optimizer=server.OPTIMIZERS["fedavgm"](0.3)),
        lambda: averaged(fedjax.optimizers.sgd(0.3, momentum=0.9)),
    ),
    "fedadam": (
        averaging(server_optimizer=server.OPTIMIZERS["fedadam"](0.1)),
        lambda: averaged(fedjax.optimizers.adam(0.1, b1=0.9, b2=0.99, eps=1e-3)),
    ),
    "fedadagrad": (
        averaging(server_optimizer=server.OPTIMIZERS["fedadagrad"](0.1)),
        lambda: averaged(fedjax.optimizers.adagrad(0.1, initial_accumulator_value=1e-6, eps=1e-6)),
    ),
    "fedprox": (
        fedprox(0.5),
        lambda: fed_prox.fed_prox(example_losses, LOCAL, fedjax.optimizers.sgd(1.0), BATCHES, 0.5),
    ),
    "mime-lite": (
        mime_lite(optax.trace(0.7), 0.5),
        lambda: fedjax_mime_lite.mime_lite(
            example_losses,
            fedjax.optimizers.sgd(RATE, momentum=0.7),
            BATCHES,
            fedjax.PaddedBatchHParams(batch_size=ROWS),
            0.5,
        ),
    ),
}


def dataset(client, round_index):
    """All rows of a client's round, in the order of its batches."""
    batches = list(SOURCE.client_batches(f"client{client}", round_index))
    return fedjax.ClientDataset({name: np.concatenate([batch[name] for batch in batches]) for name in "xy"})


@functools.cache
def ended(name):
    """The model of ours after ten rounds."""
    return vector(simulate(PAIRS[name][0], source=SOURCE)[-1].server.parameters)


@pytest.mark.parametrize("name", PAIRS)
def test_an_algorithm_equals_fedjaxs_own(name):
    restore_removed_names()
    theirs = PAIRS[name][1]()
    state = theirs.init(Objective.init(None)[0])
    for round_index, cohort in enumerate(COHORTS):
        key = jax.random.PRNGKey(0)
        clients = [(str(client).encode(), dataset(client, round_index), key) for client in cohort]
        # fedjax's own arithmetic fails under strict promotion.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            state, _ = theirs.apply(state, clients)
    expected = vector(state.params)
    found = ended(name)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    if name != "fedavg":  # a test that FedAvg passes shows nothing
        assert np.linalg.norm(ended("fedavg") - expected) > 1e-3

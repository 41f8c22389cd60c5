"""Every shipped algorithm equals a loop in NumPy, written from its paper, over ten rounds of local SGD."""

import numpy as np
import optax
import pytest

from fed.aggregation import loss_weighted
from fed.algorithms import ALGORITHMS
from fed.algorithms.averaging import averaging, fedprox
from fed.algorithms.diloco import diloco
from fed.algorithms.feddyn import feddyn
from fed.algorithms.fednova import fednova
from fed.algorithms.mime_lite import mime_lite
from fed.algorithms.qfedavg import qfedavg
from fed.algorithms.robust import krum, median, trimmed_mean
from fed.algorithms.scaffold import scaffold
from tests.fed.algorithms.regression import COHORTS, RATE, STEPS, WEIGHTS, Source, gradient, initial, simulate

SOURCE = Source()
EVERYONE = [list(range(5))] * 10


def batches(client, round_index):
    return list(SOURCE.client_batches(f"client{client}", round_index))


def local(x, client, round_index, correction=lambda y: 0.0):
    """The model of a client after its local steps."""
    y = x.copy()
    for batch in batches(client, round_index):
        y = y - RATE * (gradient(y, batch)[0] + correction(y))
    return y


def follow_fedavg():
    x = initial()
    for index, cohort in enumerate(COHORTS):
        total = sum(WEIGHTS[i] for i in cohort)
        x = sum(WEIGHTS[i] / total * local(x, i, index) for i in cohort)
    return x


def follow_loss_weighted():
    x = initial()
    for index, cohort in enumerate(COHORTS):
        models, losses = [], []
        for i in cohort:
            y, seen = x.copy(), []
            for batch in batches(i, index):
                slope, loss = gradient(y, batch)
                seen.append(loss)
                y = y - RATE * slope
            models.append(y)
            losses.append(np.mean(seen))
        shares = np.exp(-np.array(losses) + min(losses))
        x = (shares / shares.sum()) @ np.array(models)
    return x


def follow_fedprox(mu):
    x = initial()
    for index, cohort in enumerate(COHORTS):
        total = sum(WEIGHTS[i] for i in cohort)
        x = sum(WEIGHTS[i] / total * local(x, i, index, lambda y, x=x: mu * (y - x)) for i in cohort)
    return x


def follow_scaffold():
    x = initial()
    c, own = np.zeros_like(x), {i: np.zeros_like(x) for i in range(len(STEPS))}
    for index, cohort in enumerate(COHORTS):
        updates, changes = [], []
        for i in cohort:
            y = local(x, i, index, lambda y, i=i, c=c: c - own[i])
            new = own[i] - c + (x - y) / (STEPS[i] * RATE)  # option II
            updates.append(y - x)
            changes.append(new - own[i])
            own[i] = new
        x = x + np.mean(updates, axis=0)
        c = c + len(cohort) / len(STEPS) * np.mean(changes, axis=0)
    return x


def follow_fednova():
    x = initial()
    for index, cohort in enumerate(COHORTS):
        total = sum(WEIGHTS[i] for i in cohort)
        shares = {i: WEIGHTS[i] / total for i in cohort}
        effective = sum(shares[i] * STEPS[i] for i in cohort)
        x = x + effective * sum(shares[i] * (local(x, i, index) - x) / STEPS[i] for i in cohort)
    return x


def follow_feddyn(alpha):
    x = initial()
    h, own = np.zeros_like(x), {i: np.zeros_like(x) for i in range(len(STEPS))}
    for index, cohort in enumerate(COHORTS):
        models = []
        for i in cohort:
            y = local(x, i, index, lambda y, i=i, x=x: alpha * (y - x) - own[i])
            own[i] = own[i] - alpha * (y - x)
            models.append(y)
        h = h - alpha / len(STEPS) * sum(y - x for y in models)
        x = np.mean(models, axis=0) - h / alpha
    return x


def follow_mime_lite(momentum):
    x = initial()
    s = np.zeros_like(x)
    for index, cohort in enumerate(COHORTS):
        total, models, gradients = sum(WEIGHTS[i] for i in cohort), 0.0, 0.0
        for i in cohort:
            y = x.copy()
            for batch in batches(i, index):
                y = y - RATE * (gradient(y, batch)[0] + momentum * s)
            mean = np.mean([gradient(x, batch)[0] for batch in batches(i, index)], axis=0)
            models = models + WEIGHTS[i] / total * y
            gradients = gradients + WEIGHTS[i] / total * mean
        x, s = models, gradients + momentum * s
    return x


def follow_qfedavg(q):
    x = initial()
    for index, cohort in enumerate(COHORTS):
        deltas, scales = 0.0, 0.0
        for i in cohort:
            loss = np.mean([gradient(x, batch)[1] for batch in batches(i, index)])
            change = (x - local(x, i, index)) / RATE
            deltas = deltas + loss**q * change
            scales += q * loss ** (q - 1) * np.square(change).sum() + loss**q / RATE
        x = x - deltas / scales
    return x


def follow_combined(combine, cohorts=COHORTS):
    x = initial()
    for index, cohort in enumerate(cohorts):
        x = x + combine(np.array([local(x, i, index) - x for i in cohort]))
    return x


def nearest(updates, byzantine):
    squares = np.square(updates[:, None] - updates[None]).sum(-1)
    neighbours = max(1, len(updates) - byzantine - 2)
    scores = [np.sort(np.delete(row, i))[:neighbours].sum() for i, row in enumerate(squares)]
    return updates[int(np.argmin(scores))]


def trimmed(updates, share):
    cut = int(share * len(updates) + 1e-6)
    return np.sort(updates, axis=0)[cut : len(updates) - cut].mean(0)


def follow_diloco(rate, momentum):
    """The inner optimizer is SGD with momentum whose state a client keeps."""
    x = initial()
    velocity, own = np.zeros_like(x), {i: np.zeros_like(x) for i in range(len(STEPS))}
    for index, cohort in enumerate(COHORTS):
        updates = []
        for i in cohort:
            y = x.copy()
            for batch in batches(i, index):
                own[i] = gradient(y, batch)[0] + 0.5 * own[i]
                y = y - RATE * own[i]
            updates.append(y - x)
        outer = -np.mean(updates, axis=0)
        velocity = outer + momentum * velocity
        x = x - rate * (outer + momentum * velocity)
    return x


# name -> (the algorithm, its loop)
REFERENCES = {
    "fedavg": (averaging(), follow_fedavg),
    "loss-weighted": (averaging(loss_weighted()), follow_loss_weighted),
    "fedprox": (fedprox(0.5), lambda: follow_fedprox(0.5)),
    "scaffold": (scaffold(), follow_scaffold),
    "fednova": (fednova(), follow_fednova),
    "feddyn": (feddyn(0.3), lambda: follow_feddyn(0.3)),
    "mime-lite": (mime_lite(optax.trace(0.7)), lambda: follow_mime_lite(0.7)),
    "q-fedavg": (qfedavg(2.0), lambda: follow_qfedavg(2.0)),
    "median": (median(), lambda: follow_combined(lambda updates: np.median(updates, axis=0))),
    "trimmed-mean": (trimmed_mean(0.25), lambda: follow_combined(lambda updates: trimmed(updates, 0.25))),
    "krum": (krum(1), lambda: follow_combined(lambda updates: nearest(updates, 1), EVERYONE)),
    "diloco": (diloco(0.6, 0.8), lambda: follow_diloco(0.6, 0.8)),
}


def found(results):
    held = results[-1].server.parameters
    return np.append(held["w"], held["b"])


@pytest.mark.parametrize("name", REFERENCES)
def test_an_algorithm_equals_its_loop(name):
    assert set(ALGORITHMS) < set(REFERENCES)
    algorithm, follow = REFERENCES[name]
    optimizer = optax.trace(0.5) if name == "diloco" else None
    # The two clients that are nearest to each other tie where Krum looks at one neighbour.
    cohorts = EVERYONE if name == "krum" else COHORTS
    ours, expected = found(simulate(algorithm, cohorts, optimizer=optimizer)), follow()
    assert np.linalg.norm(ours - expected) <= 1e-5 * np.linalg.norm(expected)
    if name != "fedavg":
        # A loop that FedAvg passes shows nothing.
        assert np.linalg.norm(ours - found(simulate(averaging(), cohorts, optimizer=optimizer))) > 1e-3

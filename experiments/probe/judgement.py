"""The accuracy with which a task can be read from features: layers chosen on dev, scored on test."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.probe.encoded import encoder_features, layer_names
from experiments.probe.labelled_clips import LabelledClips
from experiments.probe.options import Head
from experiments.report.statistics import interval
from w2v_jax.config import ModelConfig
from w2v_jax.model.binding import Parameters
from w2v_jax.recognition.label_budgets import balanced_budget
from w2v_jax.recognition.linear_probe import ridge_probe
from w2v_jax.recognition.trained_probes import (
    layer_weights,
    mlp_probe,
    standardised,
    weighted_sum_probe,
)

# The probes, and their names in results.
HEADS: dict[Head, str] = {"linear": "linear", "mlp": "mlp", "weighted-sum": "weighted_sum"}
Features = dict[str, np.ndarray]


class Probed(NamedTuple):
    """The classes that one classifier gave to the clips of test, and how it was chosen.

    Attributes:
        layer: the layer that it reads; empty for a sum of layers.
        dev_accuracy: by which it was chosen.
        given: int64 [clip of test].
        detail: penalty, updates or weights.
    """

    layer: str
    dev_accuracy: float
    given: np.ndarray
    detail: dict[str, Any]


def probe_accuracy(config: ModelConfig, parameters: Parameters, labelled: LabelledClips) -> float:
    """Judge an encoder quickly, as pre-training does between rounds: linear probes of two layers.

    The probes are of the middle layer and the last; the better accuracy on dev counts. The penalty is chosen
    on the same clips, so that the number flatters a little, each round alike.

    Args:
        config, parameters: of the encoder; parts that only pre-training has are not used.
        labelled: clips of train and dev; those of test are not used.
    """
    train, dev = labelled.of("train"), labelled.of("dev")
    used = labelled.take(np.concatenate([train, dev]))
    features = encoder_features(config, parameters, used.clips)
    names = layer_names(config)
    chosen = {names[(config.num_layers + 1) // 2], names[-1]}
    return max(
        ridge_probe(
            (features[name][: len(train)], used.labels[: len(train)]),
            (features[name][len(train) :], used.labels[len(train) :]),
            len(labelled.classes),
        ).dev_accuracy
        for name in chosen
    )


def judge(
    features: Features, labelled: LabelledClips, heads: Sequence[Head], shares: Sequence[float], seed: int
) -> dict[str, Any]:
    """Train classifiers of every layer, and score on test those that do best on dev.

    Args:
        features: float32 [clip, feature] by layer, in the order of the clips.
        labelled: the clips and their classes.
        heads: kinds of classifier beside linear ones, which are ridge regressions of each layer. mlp: a
            network with one hidden layer, of each layer. weighted-sum: a linear map of a learnt sum of all.
        shares: of the training labels that linear probes are also trained with, between 0 and 1.
        seed: of the networks and of the choice of labels.
    """
    train = labelled.of("train")
    found: dict[str, Any] = {"layers": {name: {} for name in features}}
    probes = [_linear(name, held, labelled, train) for name, held in features.items()]
    found["linear"] = _best(probes, labelled, found["layers"], "linear")
    if "mlp" in heads:
        probes = [_mlp(name, held, labelled, seed) for name, held in features.items()]
        found["mlp"] = _best(probes, labelled, found["layers"], "mlp")
    if "weighted-sum" in heads:
        found["weighted_sum"] = scored(_weighted_sum(features, labelled, seed), labelled)
    found["budgets"] = []
    for share in shares:
        few = train[balanced_budget(labelled.labels[train], labelled.paths()[train], share, seed)]
        probes = [_linear(name, held, labelled, few) for name, held in features.items()]
        best = max(probes, key=lambda probe: probe.dev_accuracy)
        found["budgets"].append({"share": share, "clips": len(few)} | scored(best, labelled))
    return found


def scored(probe: Probed, labelled: LabelledClips) -> dict[str, Any]:
    """Score a classifier on test.

    Returns:
        accuracy over clips; by_speaker, the accuracy of each test speaker; interval, the 95 % interval of
        the speakers' mean by Student's t (None for a single speaker); confusion, clips by true and given
        class; and the probe's own fields.
    """
    test = labelled.of("test")
    right = probe.given == labelled.labels[test]
    speakers = labelled.speakers()[test]
    by_speaker = {name: float(right[speakers == name].mean()) for name in np.unique(speakers).tolist()}
    confusion = np.zeros((len(labelled.classes),) * 2, int)
    np.add.at(confusion, (labelled.labels[test], probe.given), 1)
    return {
        "layer": probe.layer,
        "accuracy": float(right.mean()),
        "interval": mean_interval(list(by_speaker.values())),
        "dev_accuracy": probe.dev_accuracy,
        "by_speaker": by_speaker,
        "confusion": confusion.tolist(),
        **probe.detail,
    }


def mean_interval(values: list[float]) -> list[float] | None:
    """Give both ends of the 95 % interval of a mean by Student's t; None for a single value."""
    half = interval(values)
    return None if half is None else [math.fsum(values) / len(values) + sign * half for sign in (-1, 1)]


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Compare two scores speaker by speaker: the mean difference and the ends of its 95 % interval."""
    each = [one["by_speaker"][name] - other["by_speaker"][name] for name in one["by_speaker"]]
    return {"mean": math.fsum(each) / len(each), "interval": mean_interval(each)}


def _best(probes: list[Probed], labelled: LabelledClips, layers: dict[str, Any], head: str) -> dict[str, Any]:
    """Score all, keep each layer's accuracies, and return the one that does best on dev."""
    test = labelled.labels[labelled.of("test")]
    for probe in probes:
        accuracy = float((probe.given == test).mean())
        layers[probe.layer][head] = {"dev_accuracy": probe.dev_accuracy, "accuracy": accuracy}
    return scored(max(probes, key=lambda probe: probe.dev_accuracy), labelled)


def _split(features: np.ndarray, labelled: LabelledClips, split: str) -> tuple[np.ndarray, np.ndarray]:
    own = labelled.of(split)
    return features[own], labelled.labels[own]


def _linear(layer: str, features: np.ndarray, labelled: LabelledClips, train: np.ndarray) -> Probed:
    probe = ridge_probe(
        (features[train], labelled.labels[train]),
        _split(features, labelled, "dev"),
        len(labelled.classes),
    )
    given = probe.classify(_split(features, labelled, "test")[0])
    return Probed(layer, probe.dev_accuracy, given, {"penalty": probe.penalty})


def _mlp(layer: str, features: np.ndarray, labelled: LabelledClips, seed: int) -> Probed:
    (train, train_labels), (dev, dev_labels), (test, _) = (
        _split(features, labelled, split) for split in ("train", "dev", "test")
    )
    train, dev, test = standardised(train, dev, test)
    probe = mlp_probe((train, train_labels), (dev, dev_labels), len(labelled.classes), seed)
    return Probed(layer, probe.dev_accuracy, probe.classify(test), {"updates": probe.updates})


def _weighted_sum(features: Features, labelled: LabelledClips, seed: int) -> Probed:
    parts = [
        standardised(*(_split(held, labelled, split)[0] for split in ("train", "dev", "test")))
        for held in features.values()
    ]
    train, dev, test = (np.stack([part[index] for part in parts], 1) for index in range(3))
    labels = {split: labelled.labels[labelled.of(split)] for split in ("train", "dev")}
    probe = weighted_sum_probe((train, labels["train"]), (dev, labels["dev"]), len(labelled.classes), seed)
    weights = dict(zip(features, layer_weights(probe), strict=True))
    return Probed(
        "", probe.dev_accuracy, probe.classify(test), {"weights": weights, "updates": probe.updates}
    )

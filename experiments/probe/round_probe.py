"""`pretrain --probe-every`: the accuracy of linear probes of the encoder, between rounds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.data import corpora
from experiments.probe import labelled_clips
from experiments.probe.judgement import probe_accuracy
from experiments.probe.labelled_clips import LabelledClips
from fed.placement import fetch
from w2v_jax.config import ModelConfig
from w2v_jax.recognition.label_budgets import balanced_budget

MOST_CLIPS = 400  # of train, and of dev
CLASSES = "sentence"  # the column that tells the class


@dataclasses.dataclass(frozen=True)
class RoundProbe:
    """Judges the encoders of a run by the same few clips, which are read once.

    Attributes:
        config: the configuration of the encoder, as a reader of the run folder builds it.
        labelled: clips of train and dev, with their classes.
        notes: lines for the user.
    """

    config: ModelConfig
    labelled: LabelledClips
    notes: tuple[str, ...]

    def __call__(self, parameters: Mapping[str, Any]) -> float:
        """Compute the accuracy on dev of the better of two linear probes: the middle and the last layer.

        Args:
            parameters: the parameters of the pre-training model, on any devices.
        """
        placed = jax.device_put(fetch(dict(parameters)), jax.local_devices()[0])
        return probe_accuracy(self.config, placed, self.labelled)


def of_settings(settings: Any) -> RoundProbe | None:
    """Read the clips that a run is probed with; None for a run without --probe-every.

    Raises:
        CorpusError: no such corpus, or its clips have no classes that a probe can be trained with.
    """
    if settings.probe_every is None or settings.probe_data is None:
        return None
    config = ModelConfig.from_dict(dict(settings.model_config))
    folder = corpora.find(settings.probe_data, "--probe-data")
    read = labelled_clips.load(
        str(folder), "keywords", CLASSES, min_samples=config.receptive_field_samples, seed=settings.seed
    )
    used = few_clips(read, MOST_CLIPS, settings.seed)
    counts = ", ".join(f"{len(used.of(split))} clips of {split}" for split in ("train", "dev"))
    told = f"probe: {len(used.classes)} classes of {folder}, {counts}"
    return RoundProbe(config, used, (told, *read.notes))


def few_clips(labelled: LabelledClips, most: int, seed: int) -> LabelledClips:
    """Choose at most `most` clips of train and of dev, as many of each class; every class keeps one at least.

    Args:
        labelled: all clips; those of test are left out.
        most: clips of a split.
        seed: the seed of the choice.
    """
    chosen = []
    for split in ("train", "dev"):
        own = labelled.of(split)
        share = min(1.0, most / len(own))
        chosen.append(own[balanced_budget(labelled.labels[own], labelled.paths()[own], share, seed)])
    return labelled.take(np.concatenate(chosen))

"""The length of training crops where the command names none: chosen from the lengths of the clips."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.pretrain.clients import ClientData
from experiments.pretrain.recipes import RECIPES
from experiments.pretrain.settings import Settings
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.common_voice import lengths

MOST_PADDING = 0.1  # share of a batch
STEPS_PER_SECOND = 10  # crops are tried in steps of 0.1 s


def settled(settings: Settings, data: ClientData, config: ModelConfig) -> tuple[Settings, list[str]]:
    """Choose the crop of a run that has none yet, and say so.

    Returns:
        The settings with their crop, and lines for the user: none where the recipe's crop is used.
    """
    if settings.crop_seconds is not None:
        return settings, []
    seconds = [lengths(clips) / SAMPLE_RATE_HZ for clips in data.clients.values()]
    if settings.local_steps is None:  # in epochs a client's share of the batches grows with its clips
        seconds = [np.concatenate(seconds)]
    recipe = RECIPES[settings.model].crop_seconds
    crop = choose(recipe, seconds, shortest_crop(config))
    note = (
        f"crops of {crop:g} s in place of the recipe's {recipe:g} s, for clips of "
        f"{np.concatenate(seconds).mean():.1f} s on average: {100 * padding(seconds, crop):.0f} % of a batch "
        f"is padding, in place of {100 * padding(seconds, recipe):.0f} %; --seconds sets another length"
    )
    return dataclasses.replace(settings, crop_seconds=crop), [] if crop == recipe else [note]


def choose(recipe_seconds: float, clip_seconds: Sequence[np.ndarray], shortest_seconds: float) -> float:
    """Choose the longest crop that pads at most MOST_PADDING of a batch, and is no longer than the clips.

    Args:
        recipe_seconds: the longest crop to choose.
        clip_seconds: lengths of the clips of each client; clients fill equally many batches.
        shortest_seconds: the shortest crop to choose, unless the recipe's is shorter.
    """
    first = math.floor(shortest_seconds * STEPS_PER_SECOND + 0.5)
    tried = [steps / STEPS_PER_SECOND for steps in range(first, math.ceil(recipe_seconds * STEPS_PER_SECOND))]
    longest = max(float(seconds.max()) for seconds in clip_seconds)
    for crop in [recipe_seconds, *tried[::-1]]:
        if padding(clip_seconds, crop) <= MOST_PADDING and crop < longest + 1 / STEPS_PER_SECOND:
            return crop
    return tried[0] if tried else recipe_seconds


def padding(clip_seconds: Sequence[np.ndarray], crop_seconds: float) -> float:
    """Compute the share of a batch that crops leave empty, as the mean over clients."""
    filled = [np.minimum(seconds, crop_seconds).mean() for seconds in clip_seconds]
    return 1.0 - float(np.mean(filled)) / crop_seconds


def shortest_crop(config: ModelConfig) -> float:
    """Find the shortest crop, in steps of 0.1 s, that holds two mask spans; in seconds."""
    steps = 1
    while config.num_frames(steps * SAMPLE_RATE_HZ // STEPS_PER_SECOND) < 2 * config.mask_span:
        steps += 1
    return steps / STEPS_PER_SECOND

"""The length of training crops where `--crop-seconds` is left out. Imports no jax."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.pretrain.settings import Settings
from experiments.report.units import percent
from experiments.runs.folder import RunFolder
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.common_voice import Utterance, lengths

MOST_PADDING = 0.1  # share of a batch


def padded_share(num_samples: np.ndarray, crop_seconds: float) -> float:
    """Compute the share of crops that is padding when every clip is drawn equally often.

    Args:
        num_samples: length of every clip at 16 kHz, int64 [clip].
        crop_seconds: length of the crops.
    """
    crop_samples = round(crop_seconds * SAMPLE_RATE_HZ)
    return 1.0 - float(np.minimum(num_samples, crop_samples).mean()) / crop_samples


def shortest_crop_seconds(config: ModelConfig) -> float:
    """Find the shortest crop, in steps of 0.1 s, that holds two mask spans."""
    tenths = 1
    while config.num_frames(round(tenths / 10 * SAMPLE_RATE_HZ)) < 2 * config.mask_span:
        tenths += 1
    return tenths / 10


def fit_crop(num_samples: np.ndarray, recipe_seconds: float, config: ModelConfig) -> tuple[float, str | None]:
    """Choose the recipe's crop, or a shorter one where that leaves more than MOST_PADDING of a batch empty.

    Args:
        num_samples: length of every training clip at 16 kHz, int64 [clip].
        recipe_seconds: the recipe's crop.
        config: the model, whose masks bound the crop from below.

    Returns:
        The crop in seconds, and a line that says why it differs from the recipe's; None where it does not.
    """
    if (before := padded_share(num_samples, recipe_seconds)) <= MOST_PADDING:
        return recipe_seconds, None
    shortest = min(shortest_crop_seconds(config), recipe_seconds)
    chosen, tenths = shortest, math.ceil(10 * recipe_seconds) - 1
    while tenths / 10 > shortest:
        if padded_share(num_samples, tenths / 10) <= MOST_PADDING:
            chosen = tenths / 10
            break
        tenths -= 1
    after = padded_share(num_samples, chosen)
    why = (
        f"the longest with at most {percent(MOST_PADDING)} of padding"
        if after <= MOST_PADDING
        else "the shortest that holds two mask spans"
    )
    return chosen, (
        f"crops are {chosen:g} s long, {why}: crops of the recipe's {recipe_seconds:g} s would be "
        f"{percent(before)} padding, these are {percent(after)}; --crop-seconds sets another length"
    )


def settle(
    settings: Settings, clips: Sequence[Utterance], folder: RunFolder, *, fits: bool
) -> tuple[Settings, str | None]:
    """Fit the crop of a new run to its training clips, for the config.json that its folder will write.

    Args:
        settings: of the run; those of a run that continues stay as they are.
        clips: the training clips.
        folder: of the run, before `begin`.
        fits: whether the crop may be chosen here; it may not where the user gave one.

    Returns:
        The settings, and a line that says why the crop differs from the recipe's; None where it does not.
    """
    if not fits or folder.continues:
        return settings, None
    config = ModelConfig.from_dict(dict(settings.model_config))
    chosen, note = fit_crop(lengths(clips), settings.crop_seconds, config)
    folder.settings["crop_seconds"] = chosen
    return dataclasses.replace(settings, crop_seconds=chosen), note

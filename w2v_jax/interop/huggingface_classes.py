"""The classes of a Wav2Vec2ForSequenceClassification: its settings in config.json, in both directions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from w2v_jax.config import MOST
from w2v_jax.errors import UserError

SCORES, PROJECTOR = "classifier.weight", "projector.weight"
PROJECTION_DIM = 256  # transformers' default of classifier_proj_size


class ClassifierShape(NamedTuple):
    """The shape of a classifier's head.

    Attributes:
        classes: names, in the order of the scores.
        projection_dim: width of the map of every frame before the mean over frames.
        weighted_layers: whether frames are a trained mean of all layers, in place of the last layer's.
    """

    classes: tuple[str, ...]
    projection_dim: int
    weighted_layers: bool


def read_shape(
    path: Path | str, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> ClassifierShape:
    """Read the shape of a classifier's head from its config.json.

    Args:
        path: config.json, for messages.
        settings: its content.
        arrays: the model's arrays, which tell what config.json leaves out; None for transformers' defaults.

    Raises:
        UserError: a width that is no count, or names that are not one for each score.
    """
    scores = None if arrays is None else arrays.get(SCORES)
    projector = None if arrays is None else arrays.get(PROJECTOR)
    width = settings.get("classifier_proj_size")
    if width is None:
        width = PROJECTION_DIM if projector is None else len(projector)
    if type(width) is not int or not 1 <= width <= MOST:
        raise UserError(
            f"{path} has classifier_proj_size {width!r}: it must be a whole number from 1 to {MOST}"
        )
    weighted = settings.get("use_weighted_layer_sum")
    if not isinstance(weighted, bool | None):
        raise UserError(f"{path} has use_weighted_layer_sum {weighted!r}: it must be true or false")
    count = settings.get("num_labels") if scores is None else len(scores)
    names = settings.get("id2label")
    if names is None:
        names = {str(index): f"LABEL_{index}" for index in range(2 if count is None else count)}
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path} has id2label {names!r}: it must be a table of names by number")
    wanted = [str(index) for index in range(len(names) if count is None else count)]
    if sorted(names) != sorted(wanted):
        raise UserError(
            f"{path} has id2label of {len(names)} classes: it must name those from 0 to {len(wanted) - 1}"
        )
    classes = tuple(str(names[index]) for index in wanted)
    if len(set(classes)) < len(classes):
        raise UserError(f"{path} has id2label with a name of two classes: every class needs its own")
    return ClassifierShape(classes, width, bool(weighted))


def classifier_settings(classes: Sequence[str], projection_dim: int, weighted_layers: bool) -> dict[str, Any]:
    """Write the settings of a classifier's head as config.json has them."""
    return {
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
        "classifier_proj_size": projection_dim,
        "use_weighted_layer_sum": weighted_layers,
    }

"""Training methods by name: ways to compute a step that take less memory. Imports no jax.

Commas combine names, as in `remat,micro-2`. Methods in `EXACT` give the same gradients as `plain` except for
rounding; those in `INEXACT` do not.
"""

import dataclasses
import difflib
import re
from typing import Any

from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError

BLOCK_FRAMES = 50  # frames of a block of the CNN: one second
BLOCK_ROWS = 128  # rows of a block of attention and of the contrastive task
FEED_FORWARD_FRAMES = 600  # smaller blocks would read the weights more often

PLAIN = "plain"
NUMBER = "N"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """The meaning of one name.

    Attributes:
        about: description in a few words.
        changes: changed fields of the ModelConfig; NUMBER stands for the number in the name.
        optimizer: changed fields of the OptimizerConfig.
        layerwise: whether each layer's gradients are applied as soon as they are known.
    """

    about: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: dict[str, Any] = dataclasses.field(default_factory=dict)
    layerwise: bool = False


EXACT = {
    "remat-cnn": Method(
        about="each CNN layer computed again in the backward pass; XLA:CPU undoes much of it; no effect "
        "with encoder-blocks or micro-N, which compute the CNN again themselves",
        changes={"rematerialise_cnn": True},
    ),
    "remat-layers": Method(
        about="each transformer layer computed again", changes={"rematerialise_layers": True}
    ),
    "remat-attention": Method(
        about=f"attention {BLOCK_ROWS} queries at a time, its scores computed again",
        changes={"attention_block_frames": BLOCK_ROWS},
    ),
    "remat-feed-forward": Method(
        about=f"feed-forward nets {FEED_FORWARD_FRAMES} frames at a time, computed again",
        changes={"feed_forward_block_frames": FEED_FORWARD_FRAMES},
    ),
    "remat-similarity": Method(
        about=f"the contrastive task, or best-rq's codes, {BLOCK_ROWS} frames at a time, computed again",
        changes={"similarity_block_frames": BLOCK_ROWS},
    ),
    "encoder-blocks": Method(
        about=f"the CNN {BLOCK_FRAMES} frames at a time, computed again, with exact GroupNorm statistics",
        changes={"encoder_block_frames": BLOCK_FRAMES},
    ),
    "micro-N": Method(
        about="N utterances at a time, gradients added up layer by layer, all losses exact; layers are "
        "computed again",
        changes={"micro_batch": NUMBER},
    ),
    "layerwise": Method(
        about="plain SGD without clipping, applied layer by layer in the backward pass; not with micro-N",
        optimizer={"clip_norm": None},
        layerwise=True,
    ),
    "gathered-negatives": Method(
        about="negatives gathered as vectors, as other programs do; shows what plain saves where the "
        "contrastive task is the peak",
        changes={"gathered_negatives": True},
    ),
}
INEXACT = {
    "frozen-encoder": Method(
        about="inexact: the CNN is not trained",
        changes={"frozen_feature_encoder": True},
        optimizer={"frozen": ("feature_encoder",)},
    ),
    "truncated-N": Method(
        about="inexact: clips cut to their first N seconds", changes={"truncate_seconds": NUMBER}
    ),
    "bf16-state": Method(
        about="inexact: AdamW's first moment, or Lion's, in bf16", optimizer={"state_dtype": "bfloat16"}
    ),
}
GROUPS = {
    PLAIN: (),
    "remat": ("remat-cnn", "remat-layers"),
    "exact": (
        "encoder-blocks",
        "remat-layers",
        "remat-attention",
        "remat-feed-forward",
        "remat-similarity",
        "micro-1",
    ),
}
METHODS = EXACT | INEXACT
# Methods of a part that some models lack; in a group they have no effect there.
OF_CONVOLUTIONS = ("remat-cnn", "encoder-blocks", "frozen-encoder")
OF_THE_CONTRASTIVE_TASK = ("gathered-negatives",)


def names_of(method: str) -> list[str]:
    """List the single methods of a combination such as "remat,micro-2"; groups are resolved.

    Raises:
        UserError: a name is unknown, or two names contradict each other.
    """
    found: dict[str, str] = {}
    for word in method.split(","):
        for name in GROUPS.get(word, (word,)):
            key, number = _pattern(name)
            if key in found and found[key] != name:
                raise UserError(f"--method {method}: {found[key]} and {name} contradict each other")
            if number is not None and (number <= 0 or (key == "micro-N" and number != int(number))):
                raise UserError(
                    f"--method {method}: the number in {name} must be positive, and whole for micro-N"
                )
            found[key] = name
    if "layerwise" in found and "micro-N" in found:
        raise UserError(
            f"--method {method}: layerwise applies gradients at once, but micro-N wants them added up first"
        )
    return list(found.values())


def is_exact(method: str) -> bool:
    """Tell whether a combination gives the gradients of the plain step."""
    return all(_pattern(name)[0] in EXACT for name in names_of(method))


def configured(config: ModelConfig, method: str) -> ModelConfig:
    """Apply a combination of methods to a model's configuration.

    Raises:
        UserError: a name is unknown, two names contradict each other, or a name means a part that the model
            lacks.
    """
    _check_parts(config, method)
    changes: dict[str, Any] = {}
    for name in names_of(method):
        key, number = _pattern(name)
        changes |= {
            field: (int(number or 0) if field == "micro_batch" else number) if value == NUMBER else value
            for field, value in METHODS[key].changes.items()
        }
    return config.replace(**changes)


def lacking(config: ModelConfig) -> tuple[str, ...]:
    """List the methods of parts that a model lacks."""
    front_end = OF_CONVOLUTIONS if config.front_end == "log-mel" else ()
    return front_end + (OF_THE_CONTRASTIVE_TASK if config.objective == "best-rq" else ())


def _check_parts(config: ModelConfig, method: str) -> None:
    """Refuse methods, named one by one, of a part that the model lacks.

    Raises:
        UserError: there is such a method.
    """
    for name in method.split(","):
        if name in lacking(config):
            part = "convolutions" if name in OF_CONVOLUTIONS else "the contrastive task"
            raise UserError(
                f"--method {method}: {name} is for {part}, which a model of {config.objective} on "
                f"{config.front_end} input lacks: leave it out"
            )


def optimizer_changes(method: str) -> dict[str, Any]:
    """Collect the fields of the OptimizerConfig that a combination changes."""
    return {
        field: value
        for name in names_of(method)
        for field, value in METHODS[_pattern(name)[0]].optimizer.items()
    }


def is_layerwise(method: str) -> bool:
    """Tell whether each layer's gradients are applied as soon as they are known."""
    return any(METHODS[_pattern(name)[0]].layerwise for name in names_of(method))


def _pattern(name: str) -> tuple[str, float | None]:
    """Split a name into its key in METHODS and its number, None without one."""
    if name in METHODS and not name.endswith("-N"):
        return name, None
    parts = re.fullmatch(r"(micro|truncated)-([0-9]+(?:\.[0-9]+)?)", name)
    if parts:
        return f"{parts[1]}-N", float(parts[2])
    if name in METHODS:
        raise UserError(f"method '{name}' needs a number in place of N, such as {name[:-1]}2")
    choices = [*GROUPS, *METHODS]
    close = difflib.get_close_matches(name, choices, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"unknown method '{name}': {hint}(combine by commas from {', '.join(choices)})")

"""Settings that a fairseq checkpoint keeps: read, checked against what this model computes, or listed."""

import ast
from collections.abc import Mapping
from typing import Any, NamedTuple

from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig, range_fault
from w2v_jax.interop.inert_pickles import Record

# Our settings -> fairseq's model settings.
_SETTINGS = {
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "input_dropout": "dropout_input",
    "feature_dropout": "dropout_features",
    "layer_drop": "encoder_layerdrop",
    "num_heads": "encoder_attention_heads",
    "positional_groups": "conv_pos_groups",
    "codebook_groups": "latent_groups",
    "num_negatives": "num_negatives",
    "contrastive_temperature": "logit_temp",
    "mask_probability": "mask_prob",
    "mask_span": "mask_length",
    "encoder_gradient_scale": "feature_grad_mult",
    "pre_norm": "layer_norm_first",
}
_GUMBEL = ("gumbel_temperature_start", "gumbel_temperature_end", "gumbel_temperature_decay")
# Settings of which this model has one value alone: another one changes what it computes.
_FIXED = {
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "quantize_input": False,
    "pos_enc_type": "abs",
    "attn_type": "",
    "pos_conv_depth": 1,
    "conv_pos_batch_norm": False,
}
MOST_CONVOLUTIONS = 100
# Settings of pre-training that this project does not follow, and their value where they do nothing.
_NOT_FOLLOWED = {
    "cross_sample_negatives": 0,
    "codebook_negatives": 0,
    "negatives_from_everywhere": False,
    "mask_selection": "static",
    "mask_other": 0,
    "no_mask_overlap": False,
    "mask_channel_prob": 0,
    "infonce": True,
}
# Python's parser runs out of memory or depth on long nested texts.
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError)


class Held(NamedTuple):
    """Settings of a checkpoint: the model's, the task's and the criterion's, and the name of their place."""

    model: dict[str, Any]
    task: dict[str, Any]
    criterion: dict[str, Any]
    place: str


class Read(NamedTuple):
    """Settings in our terms.

    Attributes:
        values: fields of `ModelConfig` that the checkpoint states.
        origins: for each of them, the part of the checkpoint that states it.
        layers: (channels, kernel, stride) of each convolution, or None.
        notes: lines on what is not followed.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    layers: list[tuple[int, int, int]] | None
    notes: list[str]


def held_settings(checkpoint: Mapping[str, Any]) -> Held:
    """Find a checkpoint's settings: in `cfg`, or in `args` of older ones, which is one list for all."""
    cfg = _plain(checkpoint.get("cfg"))
    parts = [cfg.get(name) if isinstance(cfg, dict) else None for name in ("model", "task", "criterion")]
    if isinstance(parts[0], dict) and parts[0]:
        model, task, criterion = (part if isinstance(part, dict) else {} for part in parts)
        return Held(model, task, criterion, "cfg")
    args = _plain(checkpoint.get("args"))
    args = args if isinstance(args, dict) else {}
    return Held(args, args, args, "args")


def _plain(value: Any) -> Any:
    """A value without the nodes that omegaconf wraps it in; interpolations, which need all of it, are
    None."""
    if isinstance(value, Record):
        fields = value.fields
        if not fields and len(value.given) == 1:  # a member of an enumeration
            return _plain(value.given[0])
        return _plain(fields["_val"] if "_val" in fields else fields.get("_content", fields))
    if isinstance(value, Mapping):
        return {str(name): _plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return None if isinstance(value, str) and value.startswith("${") else value


def read_settings(held: Held) -> Read:
    """Translate a checkpoint's settings.

    Raises:
        ValueError: one that this model does not follow, or that is no value of its kind.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(ours: str, part: str, theirs: str, value: Any) -> None:
        if value is not None:
            values[ours] = _as_kind(theirs, value, getattr(ModelConfig, ours))
            if expected := range_fault(ours, values[ours]):
                raise ValueError(f"{theirs} {value!r}: it must be {expected}")
            origins[ours] = f"fairseq's cfg.{part}" if held.place == "cfg" else "fairseq's args"

    for ours, theirs in _SETTINGS.items():
        take(ours, "model", theirs, held.model.get(theirs))
    for name, value in zip(_GUMBEL, _numbers("latent_temp", held.model, (3,)), strict=False):
        take(name, "model", "latent_temp", value)
    weights = _numbers("loss_weights", held.criterion, (1, 2))
    if not weights and "loss_weights" in held.criterion:
        weights = [0.0]  # None: fairseq adds neither
    for name, value in zip(("diversity_weight", "feature_penalty_weight"), weights * 2, strict=False):
        take(name, "criterion", "loss_weights", value)
    take("normalise_waveform", "task", "normalize", held.task.get("normalize"))
    for name, only in {**_FIXED, "sample_rate": SAMPLE_RATE_HZ}.items():
        value = (held.task if name == "sample_rate" else held.model).get(name)
        if value is not None and value != only:
            raise ValueError(f"{name} {value!r}: this model has {only!r} alone")
    unused = [
        f"{name} {value}"
        for name, off in _NOT_FOLLOWED.items()
        if (value := (held.criterion if name == "infonce" else held.model).get(name)) not in (None, off)
    ]
    notes = [f"not followed: {', '.join(unused)}"] if unused else []
    return Read(values, origins, _layers(held.model.get("conv_feature_layers")), notes)


def _as_kind(name: str, value: Any, like: Any) -> Any:
    """A number or a flag as our field has it; older files have some as text."""
    value = _literal(name, value)
    if isinstance(like, bool):
        right = type(value) is bool
    elif isinstance(like, int):
        right = type(value) is int
    else:
        right, value = type(value) in (int, float), float(value) if type(value) is int else value
    if not right:
        raise ValueError(f"{name} {_short(value)} is no {type(like).__name__}")
    return value


def _literal(name: str, value: Any) -> Any:
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except _UNREADABLE as error:
        raise ValueError(f"{name} {_short(value)} is not understood") from error


def _short(value: Any) -> str:
    """A value for a message, cut to 80 characters."""
    return whole if len(whole := repr(value)) <= 80 else f"{whole[:80]}..."


def _numbers(name: str, settings: Mapping[str, Any], counts: tuple[int, ...]) -> list[float]:
    """A list of numbers, which may be written as text; empty if there is none."""
    held = _literal(name, settings.get(name))
    if held is None:
        return []
    right = isinstance(held, list | tuple) and all(type(value) in (int, float) for value in held)
    if not right or len(held) not in counts:
        raise ValueError(f"{name} {_short(held)}: expected {' or '.join(map(str, counts))} numbers")
    return [float(value) for value in held]


def _layers(written: Any) -> list[tuple[int, int, int]] | None:
    """`conv_feature_layers`: a sum of lists of (channels, kernel, stride), some of them times a number."""
    if written is None:
        return None
    try:
        tree = ast.parse(written, mode="eval").body if isinstance(written, str) else None
        layers = _evaluated(tree) if tree is not None else written
        return [(int(channels), int(kernel), int(stride)) for channels, kernel, stride in layers]
    except _UNREADABLE as error:
        raise ValueError(f"conv_feature_layers {_short(written)} is not understood") from error


def _evaluated(tree: ast.expr) -> list[Any]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        return _few(_evaluated(tree.left) + _evaluated(tree.right))
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        times = ast.literal_eval(tree.right)
        if type(times) is not int or not 0 <= times <= MOST_CONVOLUTIONS:
            raise ValueError("no number of layers")
        return _few(_evaluated(tree.left) * times)
    return list(ast.literal_eval(tree))


def _few(layers: list[Any]) -> list[Any]:
    if len(layers) > MOST_CONVOLUTIONS:
        raise ValueError("too many layers")
    return layers

"""Names and layouts of transformers' wav2vec 2.0 classes, in both directions.

This module works on dictionaries of NumPy arrays; other modules read and write the files.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop.foreign_files import named

Parameters = dict[str, Any]
Kind = Literal[
    "Wav2Vec2ForPreTraining", "Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification"
]
PRE_TRAINING, ENCODER, CTC, CLASSIFIER = KINDS = (
    "Wav2Vec2ForPreTraining", "Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification"
)  # fmt: skip
WeightNorm = Literal["parametrizations", "weight_g"]
MASK_EMBEDDING = "masked_spec_embed"
HEAD = "head"  # of the parameters of a CTC model or a classifier, beside those of its encoder
SCORES = "lm_head.weight"
LAYER_WEIGHTS = "layer_weights"  # of a classifier whose frames are a trained mean of all layers


class Entry(NamedTuple):
    """One parameter: its path here, its name in transformers, and the changes of layout there and back.

    `layer` is the index into the leading layer axis, or None.
    """

    path: tuple[str, ...]
    name: str
    export: Callable[[np.ndarray], np.ndarray]
    load: Callable[[np.ndarray], np.ndarray]
    layer: int | None = None


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _transposed(x: np.ndarray) -> np.ndarray:
    return x.T


def entries(config: ModelConfig, kind: str = PRE_TRAINING, weighted_layers: bool = False) -> list[Entry]:
    """List the parameters of a configuration and a class of transformers, with their names on both sides.

    `weighted_layers` tells whether a classifier has weights of layers.
    """
    whole = _entries(config)
    if kind == PRE_TRAINING:
        return whole
    encoder = [entry for entry in whole if entry.name.startswith(_PREFIX)]
    if kind == ENCODER:  # its names have no prefix
        return [entry._replace(name=entry.name.removeprefix(_PREFIX)) for entry in encoder]
    if kind == CTC:
        return [*encoder, *_linear((HEAD,), "lm_head")]
    weights = [Entry((HEAD, LAYER_WEIGHTS), LAYER_WEIGHTS, _same, _same)] * weighted_layers
    maps = (entry for name in ("projector", "classifier") for entry in _linear((HEAD, name), name))
    return [*encoder, *weights, *maps]


def _linear(path: tuple[str, ...], name: str) -> list[Entry]:
    return [
        Entry((*path, "kernel"), f"{name}.weight", _transposed, _transposed),
        Entry((*path, "bias"), f"{name}.bias", _same, _same),
    ]


def _entries(config: ModelConfig) -> list[Entry]:
    found: list[Entry] = []

    def add(path: str, name: str, export=_same, load=_same, layer: int | None = None) -> None:
        found.append(Entry(tuple(path.split("/")), name, export, load, layer))

    def linear(path: str, name: str, layer: int | None = None) -> None:
        add(f"{path}/kernel", f"{name}.weight", _transposed, _transposed, layer)
        add(f"{path}/bias", f"{name}.bias", layer=layer)

    def norm(path: str, name: str, layer: int | None = None) -> None:
        add(f"{path}/scale", f"{name}.weight", layer=layer)
        add(f"{path}/bias", f"{name}.bias", layer=layer)

    for index in range(len(config.conv_channels)):
        path = f"feature_encoder/conv_layers_{index}"
        name = f"wav2vec2.feature_extractor.conv_layers.{index}"
        add(f"{path}/kernel", f"{name}.conv.weight", _transposed, _transposed)  # tap,in,out <-> out,in,tap
        if config.conv_bias:
            add(f"{path}/bias", f"{name}.conv.bias")
        if config.feature_norm == "layer" or index == 0:
            norm(f"{path}/norm", f"{name}.layer_norm")
    norm("feature_projection/layer_norm", "wav2vec2.feature_projection.layer_norm")
    linear("feature_projection/projection", "wav2vec2.feature_projection.projection")
    add("mask_embedding", "wav2vec2.masked_spec_embed")
    position = "wav2vec2.encoder.pos_conv_embed.conv"
    norm_of_weight = f"{position}.parametrizations.weight.original"
    magnitude = "context_network/positional/magnitude"
    add(magnitude, f"{norm_of_weight}0", lambda g: g.reshape(1, 1, -1), lambda g: g.reshape(-1))
    add("context_network/positional/direction", f"{norm_of_weight}1", _transposed, _transposed)
    add("context_network/positional/bias", f"{position}.bias")
    norm("context_network/layer_norm", "wav2vec2.encoder.layer_norm")
    for layer in range(config.num_layers):
        name = f"wav2vec2.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"context_network/layers/attention/{part}", f"{name}.attention.{part}", layer)
        norm("context_network/layers/layer_norm", f"{name}.layer_norm", layer)
        linear(
            "context_network/layers/feed_forward/intermediate",
            f"{name}.feed_forward.intermediate_dense",
            layer,
        )
        linear("context_network/layers/feed_forward/output", f"{name}.feed_forward.output_dense", layer)
        norm("context_network/layers/final_layer_norm", f"{name}.final_layer_norm", layer)
    groups, entry_count = config.codebook_groups, config.codebook_entries
    add(
        "quantizer/codevectors",
        "quantizer.codevectors",
        lambda c: c.reshape(1, groups * entry_count, -1),
        lambda c: c.reshape(groups, entry_count, -1),
    )
    linear("quantizer/weight_proj", "quantizer.weight_proj")
    linear("project_context", "project_hid")
    linear("project_quantized", "project_q")
    return found


_PREFIX = "wav2vec2."
# Checkpoints have either of two names for the arrays of the positional convolution's weight norm.
_OLD_SPELLINGS = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


# Arrays of the classes' heads; a checkpoint of one class may hold those of another beside its own.
_HEADS = {
    PRE_TRAINING: ("quantizer.", "project_hid.", "project_q."),
    CTC: ("lm_head.",),
    CLASSIFIER: ("projector.", "classifier.", LAYER_WEIGHTS),
    ENCODER: (),
}


def of_class(state: Mapping[str, np.ndarray], kind: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Split a checkpoint's arrays: those of one class, by its names, and names of other classes' heads.

    Args:
        state: arrays by name. Those of `Wav2Vec2Model` may have the prefix that the other classes give them.
        kind: the class.
    """
    others = tuple(prefix for of, heads in _HEADS.items() if of != kind for prefix in heads)
    aside = sorted(name for name in state if name.startswith(others))
    kept = {name: value for name, value in state.items() if not name.startswith(others)}
    if kind == ENCODER:
        kept = {name.removeprefix(_PREFIX): value for name, value in kept.items()}
    return kept, aside


def _renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, value in state.items():
        for old, new in _OLD_SPELLINGS.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        renamed[name] = np.asarray(value)
    return renamed


def encoder_from_state_dict(state: Mapping[str, np.ndarray], config: ModelConfig) -> Parameters:
    """Take the encoder's parameters from the arrays of any wav2vec 2.0 model of transformers.

    Quantizers, projections and heads in `state` are left aside.

    Raises:
        UserError: parts of the encoder are missing, have other shapes, or are not finite.
    """
    renamed = _renamed(state)
    if not any(name.startswith(_PREFIX) for name in renamed):
        renamed = {f"{_PREFIX}{name}": value for name, value in renamed.items()}
    table = [entry for entry in entries(config) if entry.name.startswith(_PREFIX)]
    renamed = _with_mask_embedding(renamed, table, config)
    if missing := sorted({entry.name for entry in table} - renamed.keys()):
        raise UserError(
            f"checkpoint of another architecture: it lacks {len(missing)} arrays of wav2vec 2.0's encoder, "
            f"the first being {missing[0]}"
        )
    return _assemble(table, renamed)


def from_state_dict(
    state: Mapping[str, np.ndarray],
    config: ModelConfig,
    kind: str = PRE_TRAINING,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Parameters:
    """Turn transformers' arrays into parameters.

    Args:
        state: arrays by name, in either spelling of the weight norm.
        config: shapes of the model.
        kind: the class of the model. The parameters of a CTC model or a classifier are its encoder's, and
            `head`; a classifier has weights of layers if `shapes`, or else `state`, have them.
        shapes: the shape that each array must have (`shapes_of`); by default none is checked.

    Raises:
        UserError: missing, extra or misshapen keys, or weights that are not finite, listed by name. Nothing
            is re-initialised except the mask embedding, which transformers leaves out of models that mask
            nothing: it is zero.
    """
    table = entries(config, kind, LAYER_WEIGHTS in (state if shapes is None else shapes))
    renamed = _with_mask_embedding(_renamed(state), table, config)
    expected = {entry.name for entry in table}
    wrong = {
        "missing": sorted(expected - renamed.keys()),
        "unexpected": sorted(renamed.keys() - expected),
        "of another shape": [
            f"{name} {renamed[name].shape}, expected {shape}"
            for name, shape in sorted((shapes or {}).items())
            if name in renamed and renamed[name].shape != shape
        ],
    }
    if any(wrong.values()):
        told = "; ".join(f"{what} {named(names)}" for what, names in wrong.items() if names)
        raise UserError(f"checkpoint does not fit {kind}: {told}")
    return _assemble(table, renamed)


def _with_mask_embedding(
    state: dict[str, np.ndarray], table: list[Entry], config: ModelConfig
) -> dict[str, np.ndarray]:
    """Add a mask embedding of zeros where there is none."""
    names = {entry.name for entry in table if entry.name.endswith(MASK_EMBEDDING)}
    return {name: np.zeros(config.hidden_dim, np.float32) for name in names} | state


def shapes_of(parameters: Parameters, config: ModelConfig, kind: str) -> dict[str, tuple[int, ...]]:
    """Give the shapes of transformers' arrays, from parameters or from objects with their shapes."""

    def shape(entry: Entry) -> tuple[int, ...]:
        held = _at(parameters, entry.path).shape
        empty = np.broadcast_to(np.float32(0), held if entry.layer is None else held[1:])
        return entry.export(empty).shape

    return {entry.name: shape(entry) for entry in entries(config, kind, _weighted(parameters))}


def _weighted(parameters: Parameters) -> bool:
    """Tell whether parameters are those of a classifier with weights of layers."""
    return LAYER_WEIGHTS in parameters.get(HEAD, {})


def _at(parameters: Parameters, path: tuple[str, ...]) -> Any:
    value: Any = parameters
    for part in path:
        value = value[part]
    return value


def _assemble(table: list[Entry], renamed: Mapping[str, np.ndarray]) -> Parameters:
    broken = [entry.name for entry in table if not np.isfinite(renamed[entry.name]).all()]
    if broken:
        raise UserError(f"checkpoint with weights that are NaN or infinite: {named(broken)}")
    stacks: dict[tuple[str, ...], list[np.ndarray]] = {}
    for entry in table:
        stacks.setdefault(entry.path, []).append(entry.load(renamed[entry.name]))
    layered = {entry.path for entry in table if entry.layer is not None}
    parameters: Parameters = {}
    for path, values in stacks.items():
        node = parameters
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = np.ascontiguousarray(np.stack(values) if path in layered else values[0])
    return parameters


def to_state_dict(
    parameters: Parameters,
    config: ModelConfig,
    kind: str = PRE_TRAINING,
    weight_norm: WeightNorm = "parametrizations",
) -> dict[str, np.ndarray]:
    """Turn parameters into transformers' arrays.

    Args:
        parameters: those of the whole model, of the encoder alone, or of the encoder with `head`, as `kind`
            needs.
        config: shapes of the model.
        kind: the class that the arrays are for.
        weight_norm: spelling of the positional convolution's two arrays: parametrizations, or weight_g
            as before torch 2.
    """
    state = {}
    for entry in entries(config, kind, _weighted(parameters)):
        value = np.asarray(_at(parameters, entry.path))
        name = entry.name
        if weight_norm == "weight_g":
            for old, new in _OLD_SPELLINGS.items():
                name = name.removesuffix(new) + old if name.endswith(new) else name
        state[name] = np.ascontiguousarray(entry.export(value if entry.layer is None else value[entry.layer]))
    return state

"""Names and layouts of transformers' Wav2Vec2ForPreTraining, in both directions.

Works on dictionaries of NumPy arrays; reading and writing files is for others.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError

Parameters = dict[str, Any]


class Entry(NamedTuple):
    """One parameter: its path here, its name there, how to go there and back.

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


def entries(config: ModelConfig) -> list[Entry]:
    """The correspondence for a configuration, parameter by parameter."""
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
    add(
        "context_network/positional/magnitude",
        f"{position}.parametrizations.weight.original0",
        lambda g: g.reshape(1, 1, -1),
        lambda g: g.reshape(-1),
    )
    add(
        "context_network/positional/direction",
        f"{position}.parametrizations.weight.original1",
        _transposed,
        _transposed,
    )
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


# The positional convolution's weight norm has two spellings in the wild.
_OLD_SPELLINGS = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


def _renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, value in state.items():
        for old, new in _OLD_SPELLINGS.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        renamed[name] = np.asarray(value)
    return renamed


def encoder_from_state_dict(state: Mapping[str, np.ndarray], config: ModelConfig) -> Parameters:
    """The encoder's parameters from the arrays of any wav2vec 2.0 model of transformers.

    Quantizers, projections and heads in `state` are left aside.

    Raises:
        UserError: parts of the encoder are missing, or have other shapes.
    """
    renamed = _renamed(state)
    if not any(name.startswith("wav2vec2.") for name in renamed):  # Wav2Vec2Model itself has no prefix
        renamed = {f"wav2vec2.{name}": value for name, value in renamed.items()}
    table = [entry for entry in entries(config) if entry.name.startswith("wav2vec2.")]
    if missing := sorted({entry.name for entry in table} - renamed.keys()):
        raise UserError(
            f"checkpoint of another architecture: it lacks {len(missing)} arrays of wav2vec 2.0's encoder, "
            f"the first being {missing[0]}"
        )
    return _assemble(table, renamed)


def from_state_dict(state: Mapping[str, np.ndarray], config: ModelConfig) -> Parameters:
    """transformers' arrays -> parameters.

    Raises:
        UserError: missing or extra keys, listed by name. Nothing is ever re-initialised silently.
    """
    renamed = _renamed(state)
    table = entries(config)
    expected = {entry.name for entry in table}
    missing, extra = sorted(expected - renamed.keys()), sorted(renamed.keys() - expected)
    if missing or extra:
        raise UserError(f"checkpoint does not fit: missing {missing or 'none'}; unexpected {extra or 'none'}")
    return _assemble(table, renamed)


def _assemble(table: list[Entry], renamed: Mapping[str, np.ndarray]) -> Parameters:
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


def to_state_dict(parameters: Parameters, config: ModelConfig) -> dict[str, np.ndarray]:
    """Parameters -> transformers' arrays."""
    state = {}
    for entry in entries(config):
        value: Any = parameters
        for part in entry.path:
            value = value[part]
        value = np.asarray(value)
        state[entry.name] = np.ascontiguousarray(
            entry.export(value if entry.layer is None else value[entry.layer])
        )
    return state

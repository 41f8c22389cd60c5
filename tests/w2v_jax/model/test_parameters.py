"""Parameter counts of the paper's Table 1, to the last digit printed there."""

import jax
import numpy as np
import pytest

from w2v_jax.config import PRESETS
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_names
from w2v_jax.objective.pretraining import bind_model


def shapes(name):
    init, _ = bind_model(PRESETS[name])
    return jax.eval_shape(init, jax.random.key(0))


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def rows(tree):
    """The paper's modules: project_* and the mask embedding are in no row."""
    codebook_and_logits = count(tree["quantizer"])
    return {
        "cnn_encoder": count(tree["feature_encoder"]) + count(tree["feature_projection"]),
        "transformer": count(tree["context_network"]),
        "quantization": codebook_and_logits,
    }


@pytest.mark.parametrize(
    ("name", "expected_millions"),
    [
        ("base", {"cnn_encoder": 4.5955, "transformer": 89.7755, "quantization": 0.4102}),
        ("large", {"cnn_encoder": 4.7268, "transformer": 310.7012, "quantization": 0.5741}),
    ],
)
def test_table_1(name, expected_millions):
    found = rows(shapes(name))
    assert {key: round(value / 1e6, 4) for key, value in found.items()} == expected_millions
    total = {"base": 94.7812, "large": 316.0020}[name]
    assert round(sum(found.values()) / 1e6, 4) == total


def test_whole_base_model():
    assert count(shapes("base")) == 95_044_608


def test_tiny_is_tiny():
    assert count(shapes("tiny")) <= 1_000_000


def test_layers_carry_a_leading_axis():
    kernel = shapes("base")["context_network"]["layers"]["attention"]["q_proj"]["kernel"]
    assert kernel.shape == (12, 768, 768)


@pytest.mark.parametrize("name", ["tiny", "large-lv60"])
def test_names_cover_every_parameter_once(name):
    tree = shapes(name)
    paths = {tuple(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    table = huggingface_names.entries(PRESETS[name])
    assert {entry.path for entry in table} == paths
    assert len({entry.name for entry in table}) == len(table)


def test_missing_and_extra_keys_are_named():
    init, _ = bind_model(PRESETS["tiny"])
    state = huggingface_names.to_state_dict(init(jax.random.key(0)), PRESETS["tiny"])
    state["surplus"] = state.pop("project_q.bias")
    with pytest.raises(UserError, match=r"missing project_q\.bias; unexpected surplus"):
        huggingface_names.from_state_dict(state, PRESETS["tiny"])


def test_old_weight_norm_spelling_is_understood():
    config = PRESETS["tiny"]
    init, _ = bind_model(config)
    state = huggingface_names.to_state_dict(init(jax.random.key(0)), config)
    old = {
        name.replace(".parametrizations.weight.original0", ".weight_g").replace(
            ".parametrizations.weight.original1", ".weight_v"
        ): value
        for name, value in state.items()
    }
    assert old.keys() != state.keys()
    ours, theirs = (huggingface_names.from_state_dict(s, config) for s in (state, old))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

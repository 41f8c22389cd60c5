"""The accounting `autograd` against what torch keeps of transformers' model (make parity)."""

import re

import pytest

pytest.importorskip("torch", reason="make parity installs torch and transformers")

from experiments.costs.step.eager_model import trace
from profiling.eager_memory import Tape
from tests.configs import VARIANTS
from tests.parity.saved_tensors import measure
from tests.profiling.test_eager_memory import TRANSFORMERS
from w2v_jax.config import BASE

pytestmark = pytest.mark.parity

NAMES = [
    (r"wav2vec2\.feature_extractor\.conv_layers\.(\d+).*", r"conv_layers_\1"),
    (r"wav2vec2\.feature_projection.*", "feature_projection"),
    (r"wav2vec2\.encoder\.pos_conv_embed.*", "positional"),
    (r"wav2vec2\.encoder\.layers\.(\d+).*", r"layers_\1"),
    (r"wav2vec2\.encoder.*", "context_network"),
    (r"wav2vec2", "masking"),
    (r"(quantizer|dropout_features).*", "quantizer"),
    (r"project_hid", "project_context"),
    (r"project_q", "project_quantized"),
    (r"", "losses"),
]


def of_torch(module):
    for pattern, name in NAMES:
        if found := re.fullmatch(pattern, module):
            return found.expand(name)
    raise AssertionError(f"no place for {module}")


def of_ours(scope):
    parts = scope.split("/")
    deep = parts[0] in ("feature_encoder", "context_network") and len(parts) > 1 and parts[1] != "layer_norm"
    return parts[1] if deep else parts[0]


def rows_of(pairs, place):
    rows = {}
    for name, size in pairs:
        rows[place(name)] = rows.get(place(name), 0) + size
    return rows


def compare(config, batch, samples, mixed=False):
    theirs = rows_of([(s.module, s.bytes) for s in measure(config, batch, samples, mixed)], of_torch)
    tape = trace(config, batch, samples, Tape("mixed" if mixed else "fp32"))
    ours = rows_of(tape.rows.items(), of_ours)
    assert ours.keys() == theirs.keys()
    for name, size in theirs.items():
        assert ours[name] == pytest.approx(size, rel=0.02, abs=64), name
    print(f"\ntorch keeps {sum(theirs.values()) / 1e9:.4f} GB, the rules say {tape.total / 1e9:.4f}")
    return sum(theirs.values())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_small_variants_layer_by_layer(name, mixed):
    dropouts = {f"{site}dropout": 0.1 for site in ("", "attention_", "activation_", "input_", "feature_")}
    compare(VARIANTS[name].replace(**dropouts), 2, 900, mixed)


def test_base_with_its_own_dropouts_and_in_mixed_precision():
    compare(BASE, 1, 88_000)
    compare(BASE, 1, 88_000, mixed=True)


@pytest.mark.parametrize(("batch", "seconds", "known_gb"), [(4, 5.5, 2.52), (8, 12.0, 13.63)])
def test_the_papers_settings(batch, seconds, known_gb):
    assert compare(TRANSFORMERS, batch, round(seconds * 16_000)) / 1e9 == pytest.approx(known_gb, rel=0.01)

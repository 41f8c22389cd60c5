import pytest

from experiments.costs.step.eager_model import trace
from profiling.eager_memory import Tape, Tensor
from tests.configs import VARIANTS
from w2v_jax.config import BASE

# transformers' own defaults, under which the known figures were measured.
TRANSFORMERS = BASE.replace(activation_dropout=0.1, input_dropout=0.0, feature_dropout=0.0)


def test_each_rule_keeps_what_it_says():
    tape = Tape()
    x = Tensor((2, 3, 4))
    with tape.within("a"):
        y = tape.linear(x, 5)  # x: 24 numbers
        tape.linear(x, 7)  # x again, held once
        z = tape.gelu(y)  # y: 30
    with tape.within("b"):
        z = tape.normalise(z, 6)  # z: 30, and 12 statistics
        z = tape.softmax(z)  # its result: 30
        z = tape.dropout(tape.dropout(z, 0.0), 0.5)  # noise: 30, once
        tape.add(z, z)
        tape.product(z, z, (2, 3, 3))  # z: 30
    assert tape.rows == {"a": 4 * (24 + 30), "b": 4 * (30 + 12 + 30 + 30 + 30)}
    assert tape.total == 4 * 186


def test_mixed_precision_halves_inputs_and_adds_weights():
    for backend, norm in (("cpu", 2), ("cuda", 4)):
        tape = Tape("mixed", backend)
        y = tape.linear(Tensor((3, 4)), 5)
        assert tape.total == 2 * 12 + 2 * 20
        tape.normalise(y, 3)
        assert tape.total == 2 * 12 + 2 * 20 + norm * 15 + 4 * 6
    for backend, noise in (("cpu", 32), ("cuda", 8)):
        tape = Tape("fp32", backend)
        assert tape.dropout(Tensor((8,)), 0.1).bytes == 32
        assert tape.total == noise


@pytest.mark.parametrize(("batch", "seconds", "known_gb"), [(4, 5.5, 2.52), (8, 12.0, 13.63)])
def test_base_comes_out_as_torch_was_seen_to_keep(batch, seconds, known_gb):
    # make parity measures these anew, layer by layer.
    tape = trace(TRANSFORMERS, batch, round(seconds * 16_000), Tape())
    assert f"{tape.total / 1e9:.2f}" == f"{known_gb:.2f}"
    layers = [tape.rows[f"feature_encoder/conv_layers_{index}"] for index in range(7)]
    assert layers == sorted(layers, reverse=True)
    whole = sum(size for name, size in tape.rows.items() if name.startswith("context_network/layers_0"))
    assert layers[0] > layers[1] > whole


@pytest.mark.parametrize("name", VARIANTS)
def test_twice_the_batch_keeps_twice_the_activations(name):
    def total(batch):
        return trace(VARIANTS[name], batch, 900, Tape()).total

    assert total(3) - total(2) == total(2) - total(1) > 0

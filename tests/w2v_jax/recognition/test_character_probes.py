"""Probes that write characters: against one probe alone, for padding, and on frames that tell one layer."""

import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.recognition import character_probes
from w2v_jax.recognition.character_probes import Batch, Kind, initial_parameters, layer_weights, scores, train

KINDS: tuple[Kind, ...] = ("linear", "mlp", "weighted_sum")
TOKENS = 4


def spoken(number: int) -> tuple[np.ndarray, list[int]]:
    """A clip of three tokens of three or four frames each: layer 1 holds them, layer 0 is noise."""
    rng = np.random.default_rng(number)
    tokens = [int(token) for token in rng.integers(1, TOKENS, 3)]
    frames = [token for token in tokens for _ in range(rng.integers(3, 5))]
    # The first frame of each token is marked: equal neighbours can be told apart.
    starts = [place for place in range(len(frames)) if place == 0 or frames[place] != frames[place - 1]]
    x = rng.normal(0.0, 0.3, (2, len(frames), TOKENS + 1))
    x[1, np.arange(len(frames)), frames] += 3.0
    x[1, starts, 0] += 3.0
    return x.astype(np.float16), [frames[place] for place in starts]


@pytest.fixture(scope="module")
def clips():
    return [spoken(number) for number in range(24)]


@pytest.fixture(scope="module")
def probes(clips):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"EPOCHS": 1, "LEAST_UPDATES": 60, "BATCH_FRAMES": 96, "SHAPES": 1}.items():
            patch.setattr(character_probes, name, value)
        patch.setattr(character_probes, "LEARNING_RATE", 3e-2)
        frames, labels = zip(*clips, strict=True)
        yield train(frames, labels, [f"{n:02d}" for n in range(24)], KINDS, TOKENS, seed=0)


def test_the_layer_that_holds_the_characters_writes_them(probes, clips):
    heard = [spoken(number) for number in range(24, 36)]
    found = probes.transcribe([frames for frames, _ in heard])
    expected = [labels for _, labels in heard]

    def right(texts):
        return np.mean([text == label for text, label in zip(texts, expected, strict=True)])

    for kind in ("linear", "mlp"):
        noise, signal = map(right, found[kind])
        assert signal > 0.8 > 0.3 > noise
    assert right(found["weighted_sum"][0]) > 0.8
    weights = layer_weights(probes)
    assert sum(weights) == pytest.approx(1.0)
    assert weights[1] > weights[0]
    assert probes.updates == 60


def test_probes_of_several_kinds_and_layers_do_not_change_one_another(probes, clips, monkeypatch):
    for name, value in {"EPOCHS": 1, "LEAST_UPDATES": 3, "BATCH_FRAMES": 96, "SHAPES": 1}.items():
        monkeypatch.setattr(character_probes, name, value)
    frames, labels = zip(*clips, strict=True)
    paths = [f"{n:02d}" for n in range(24)]
    together = train(frames, labels, paths, KINDS, TOKENS, seed=0)
    alone = train([clip[1:] for clip in frames], labels, paths, ["linear"], TOKENS, seed=0)
    np.testing.assert_allclose(
        together.parameters["linear"]["output"][1], alone.parameters["linear"]["output"][0], atol=2e-5
    )
    assert np.abs(alone.parameters["linear"]["output"]).max() > 1e-3


def test_scores_are_those_of_a_frame_beside_its_neighbours_and_padding_is_zero():
    rng = np.random.default_rng(0)
    parameters = initial_parameters(["linear"], (1, 2), 3, seed=0)
    weights = rng.normal(size=(1, 3, 2, 3)).astype(np.float32)
    parameters["linear"] = {**parameters["linear"], "output": jnp.asarray(weights)}
    x = rng.normal(size=(4, 2)).astype(np.float32)
    padded = np.concatenate([np.zeros((1, 2)), x, np.zeros((1, 2))])
    stacked = np.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1)
    bias = np.asarray(parameters["linear"]["bias"][0])
    found = np.asarray(scores(parameters, jnp.asarray(x)[None, None])["linear"])[0, 0]
    np.testing.assert_allclose(found, stacked @ weights.reshape(6, 3) + bias, rtol=1e-4, atol=1e-5)

    # A frame of padding is heard as zero, whatever it holds.
    standard = character_probes.Standard(np.ones((1, 2), np.float32), np.full((1, 2), 2.0, np.float32))
    raw = np.concatenate([x, 9.0 + np.zeros((2, 2))])[None, None].astype(np.float16)
    batch = Batch(raw, np.array([4], np.int32), np.zeros((1, 1), np.int32), np.zeros(1, np.int32))
    heard = np.asarray(character_probes._standardised(standard, batch))[0, 0]
    np.testing.assert_allclose(heard[:4], (x - 1.0) / 2.0, atol=2e-3)
    np.testing.assert_array_equal(heard[4:], 0.0)

"""BEST-RQ against a NumPy twin that shares no code with it."""

import dataclasses
import hashlib
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import SMALL_BEST_RQ
from w2v_jax.batch import Batch, Total
from w2v_jax.config import BEST_RQ_PRESETS, PRESETS, PresetName
from w2v_jax.model.best_rq import codebooks, target_codes
from w2v_jax.model.features import log_mel_frames
from w2v_jax.objective.best_rq import with_chance
from w2v_jax.objective.pretraining import bind_model, pretraining_objective
from w2v_jax.randomness import Stream, utterance_keys

CONFIG = SMALL_BEST_RQ
LENGTHS = (14_400, 9_000, 880, 12_345, 0)  # the third has a frame, but too few for a span
KEY = jax.random.key(7)
CONVOLUTION = {"conv_channels": (8,), "conv_kernels": (10,), "conv_strides": (5,)}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    waveform = np.zeros((len(LENGTHS), max(LENGTHS)), np.float32)
    for row, length in enumerate(LENGTHS):
        # A tone that glides, so that frames differ, and noise.
        time = np.arange(length) / 16_000
        tone = np.sin(2 * np.pi * (300 * (row + 1) + 900 * time) * time)
        waveform[row, :length] = 0.2 * tone + 0.05 * rng.standard_normal(length)
    ids = np.arange(3, 3 + len(LENGTHS), dtype=np.uint32)
    return Batch(jnp.asarray(waveform), jnp.array(LENGTHS, jnp.int32), jnp.asarray(ids))


@pytest.fixture(scope="module")
def parameters():
    drawn = jax.jit(pretraining_objective(CONFIG).init)(jax.random.key(0))[0]
    # Heads with opinions, so that the accuracy is not that of ties.
    drawn["prediction"]["kernel"] = 20.0 * drawn["prediction"]["kernel"]
    drawn["prediction"]["bias"] = 0.3 * jax.random.normal(
        jax.random.key(1), drawn["prediction"]["bias"].shape
    )
    return drawn


def twin_frames(clip, length):
    """Normalised log-mel frames of one clip, float64, by a Fourier matrix and triangles."""
    size, bands, stack = 512, CONFIG.log_mel_bands, CONFIG.log_mel_stack
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
    turns = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(size // 2 + 1)) / size)
    mel = np.linspace(0.0, 2595 * np.log10(1 + 8000 / 700), bands + 2)
    corners = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * 16_000 / size
    filters = np.stack([np.interp(frequencies, corners[b : b + 3], [0, 1, 0]) for b in range(bands)])
    found = []
    for start in range(0, length - 400 + 1, 160):
        spectrum = (clip[start : start + 400].astype(np.float64) * window) @ turns
        found.append(np.log(filters @ np.abs(spectrum) ** 2 + 1e-6))
    frames = len(found) // stack
    values = np.array(found[: frames * stack]).reshape(frames, stack * bands)
    if not frames:
        return values
    return (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)


def twin_codes(frames):
    """The nearest entry by distance between unit vectors, and how much nearer it is than the next one."""
    projections, entries = (part.astype(np.float64) for part in codebooks(CONFIG))
    codes = np.zeros((len(frames), CONFIG.target_codebooks), int)
    margin = np.zeros(codes.shape)
    for t, frame in enumerate(frames):
        for book in range(CONFIG.target_codebooks):
            point = frame @ projections[book]
            point /= np.linalg.norm(point)
            own = entries[book] / np.linalg.norm(entries[book], axis=1, keepdims=True)
            distances = np.linalg.norm(own - point, axis=1)
            codes[t, book] = distances.argmin()
            first, second = np.sort(distances)[:2]
            margin[t, book] = second - first
    return codes, margin


def twin_mask(key, frames, total):
    """Spans at the places with the smallest scores among those where a span has room."""
    count_key, start_key = jax.random.split(key)
    uniform, scores = (
        float(jax.random.uniform(count_key)),
        np.asarray(jax.random.uniform(start_key, (total,))),
    )
    span, room = CONFIG.mask_span, frames // CONFIG.mask_span
    wanted = int(CONFIG.mask_probability * frames / span + uniform)
    count = min(max(wanted, min(CONFIG.mask_min_spans, room)), room)
    mask = np.zeros(total, bool)
    for start in np.argsort(scores[: max(frames - span + 1, 0)], kind="stable")[:count]:
        mask[start : start + span] = True
    return mask


@pytest.fixture(scope="module")
def twin(batch):
    """Frames, codes, margins and masks of every utterance."""
    total = CONFIG.num_frames(batch.waveform.shape[1])
    keys = utterance_keys(KEY, batch.utterance_id, Stream.MASK)
    found = []
    for row, length in enumerate(LENGTHS):
        frames = twin_frames(np.asarray(batch.waveform)[row], length)
        found.append((frames, *twin_codes(frames), twin_mask(keys[row], len(frames), total)))
    return found


def test_frames_are_the_twins(batch, twin):
    found = np.asarray(log_mel_frames(CONFIG, batch.waveform, batch.num_samples))
    assert found.shape == (len(LENGTHS), 44, 20)
    for row, (frames, *_) in enumerate(twin):
        np.testing.assert_allclose(found[row, : len(frames)], frames, atol=2e-3)
        assert not found[row, len(frames) :].any()


def test_codes_are_the_nearest_unit_vectors(batch, twin):
    features = log_mel_frames(CONFIG, batch.waveform, batch.num_samples)
    found = np.asarray(target_codes(CONFIG, features))
    for row, (frames, codes, margin, _) in enumerate(twin):
        clear = margin > 1e-3
        assert clear.sum() >= 0.95 * clear.size
        np.testing.assert_array_equal(found[row, : len(frames)][clear], codes[clear])
    assert len(np.unique(found[0])) > 4  # frames that differ have codes that differ
    louder = np.asarray(target_codes(CONFIG, 3.0 * features))
    np.testing.assert_array_equal(louder, found)  # the length of a projected frame does not count


def log_softmax(scores):
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def test_mask_loss_and_metrics_are_the_twins(batch, twin, parameters):
    objective = pretraining_objective(CONFIG)
    sums = jax.device_get(jax.jit(objective.evaluate)(parameters, {}, batch, KEY))
    # Codes with narrow margins may fall the other way: the twin takes the model's, which another test holds.
    codes = np.asarray(target_codes(CONFIG, log_mel_frames(CONFIG, batch.waveform, batch.num_samples)))
    mask = np.stack([masked for *_, masked in twin])
    _, apply = bind_model(CONFIG)
    encoded, _ = jax.jit(apply)(parameters, batch.waveform, batch.num_samples, jnp.asarray(mask))
    context = np.asarray(encoded.context, np.float64)
    kernel, bias = (np.asarray(parameters["prediction"][name], np.float64) for name in ("kernel", "bias"))
    books, entries = CONFIG.target_codebooks, CONFIG.target_entries

    def of(context):
        scores = log_softmax((context @ kernel + bias).reshape(*context.shape[:2], books, entries))
        own = np.take_along_axis(scores, codes[..., None], -1)[..., 0]
        return scores, -own.mean(-1), (scores.argmax(-1) == codes).mean(-1)

    scores, loss, correct = of(context)
    masked = mask.sum()
    assert masked > 30
    assert sums["loss"].weight == masked
    np.testing.assert_allclose(sums["loss"].total, loss[mask].sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["accuracy"].total, correct[mask].sum(), rtol=1e-6)
    assert sums["masked_share"] == (masked, sum(len(frames) for frames, *_ in twin))
    np.testing.assert_allclose(sums["probability_sums"].total, np.exp(scores)[mask].sum(0), rtol=1e-4)
    counts = np.zeros((books, entries))
    for chosen in codes[mask]:
        counts[np.arange(books), chosen] += 1
    np.testing.assert_array_equal(sums["code_counts"].total, counts)

    shuffled = context.copy()
    keys = utterance_keys(KEY, batch.utterance_id, Stream.SHUFFLE)
    for row, masks in enumerate(mask):
        places = np.flatnonzero(masks)
        drawn = np.asarray(jax.random.uniform(keys[row], masks.shape))[places]
        shuffled[row, places] = context[row, places[np.argsort(drawn, kind="stable")]]
    np.testing.assert_allclose(sums["shuffled_accuracy"].total, of(shuffled)[2][mask].sum(), rtol=1e-6)
    summary = objective.summarise(sums)
    assert summary["chance_accuracy"] == pytest.approx(counts.max(1).mean() / masked)
    assert summary["code_perplexity"] == pytest.approx(
        sum(np.exp(-sum(p * np.log(p) for p in book / masked if p)) for book in counts), rel=1e-5
    )


def test_chance_is_the_accuracy_of_always_naming_the_most_frequent_code():
    counts = np.array([[6.0, 2.0, 0.0], [3.0, 3.0, 2.0]])
    sums = {"code_counts": Total(counts, 8.0), "accuracy_moments": Total(np.ones(5), 1.0)}
    assert with_chance(sums)["chance_accuracy"] == pytest.approx((6 / 8 + 3 / 8) / 2)
    assert "chance_accuracy" not in with_chance({"code_counts": Total(counts, 8.0)})  # of a training step


def test_masked_frames_are_hidden_from_the_context(batch, parameters):
    """Mask every frame: nothing of the audio is left."""
    _, apply = bind_model(CONFIG)
    total = CONFIG.num_frames(batch.waveform.shape[1])
    everything = jnp.ones((len(LENGTHS), total), bool)
    for mask, same in ((everything, True), (everything.at[:, 5].set(False), False)):
        heard, other = (
            np.asarray(apply(parameters, waveform, batch.num_samples, mask)[0].context)[0]
            for waveform in (batch.waveform, batch.waveform[:, ::-1])
        )
        assert np.allclose(heard, other, atol=1e-6) == same


def test_an_untrained_model_guesses_evenly(batch):
    objective = pretraining_objective(CONFIG)
    parameters = jax.jit(objective.init)(jax.random.key(3))[0]
    loss, sums = jax.jit(objective.training_loss)(parameters, {}, batch, KEY, 0)
    assert float(loss) == pytest.approx(np.log(CONFIG.target_entries), abs=0.05)
    assert float(loss) == pytest.approx(float(sums["loss"].total / sums["loss"].weight))


def test_codebooks_are_no_parameters_and_alike_everywhere(parameters):
    assert set(parameters) == {"feature_projection", "mask_embedding", "context_network", "prediction"}
    assert set(parameters["feature_projection"]) == {"projection"}
    projections, entries = codebooks(CONFIG)
    assert projections.shape == (2, 20, 4)
    assert entries.shape == (2, 12, 4)
    np.testing.assert_allclose(np.linalg.norm(entries, axis=-1), 1.0, rtol=1e-6)
    assert np.abs(projections).max() <= (6 / 24) ** 0.5
    assert len(np.unique(np.concatenate([part.ravel() for part in (projections, entries)]))) == 256
    # Whatever else differs between clients: another depth, precision or memory method.
    other = CONFIG.replace(num_layers=1, compute_dtype="bfloat16", micro_batch=1)
    for ours, theirs in zip(codebooks(CONFIG), codebooks(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (codebooks(CONFIG.replace(target_seed=1))[1] != entries).any()


def test_codebooks_stay_the_same_over_versions_of_numpy():
    """A NumPy that drew others would break runs that go on, and clients with different versions."""
    digest = hashlib.sha256()
    for part in codebooks(BEST_RQ_PRESETS["best-rq-tiny"]):
        digest.update(np.round(part, 4).tobytes())
    assert digest.hexdigest()[:16] == "4bc452ff810ed32d"


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("best-rq-tiny", 2_384_592), ("best-rq-small", 8_486_864), ("best-rq-base", 93_963_072)],
)
def test_presets_have_the_stated_size_and_a_frame_every_40_ms(name, parameters):
    config = PRESETS[name]
    assert count(jax.eval_shape(bind_model(config)[0], jax.random.key(0))) == parameters
    assert config.frame_samples == 640
    assert config.receptive_field_samples == 880
    assert [config.num_frames(samples) for samples in (879, 880, 16_000)] == [0, 1, 24]


def test_every_preset_can_be_named():
    assert set(typing.get_args(PresetName)) == set(PRESETS)


def test_impossible_settings_are_refused():
    for changes, words in (
        (CONVOLUTION | {"front_end": "waveform"}, "front_end must be"),
        (CONVOLUTION, "conv_channels must be empty"),
        ({"target_seed": -1}, "target_seed must be"),
        ({"target_entries": 0}, "target_entries must be"),
        ({"log_mel_stack": 0}, "log_mel_stack must be"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(CONFIG, **changes)

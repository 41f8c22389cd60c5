"""Live comparison with torch and transformers (make parity): CTC, batch normalisation, a saved encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs torch and transformers")

import torch
import transformers

from tests.configs import VARIANTS
from tests.parity import reference
from tests.parity.compare import INTERMEDIATE_TOLERANCE, relative
from w2v_jax.interop.huggingface_folder import read_encoder
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import bind
from w2v_jax.recognition.ctc import ctc_losses
from w2v_jax.recognition.heads import FrameNorm

pytestmark = pytest.mark.parity

ROWS, TIME, LABELS, TOKENS = 16, 40, 12, 7


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ctc_losses_and_gradients_agree_with_torch(seed):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((ROWS, TIME, TOKENS))).astype(np.float32)
    labels = rng.integers(1, 4, (ROWS, LABELS)).astype(np.int32)
    num_labels = rng.integers(0, LABELS + 1, ROWS).astype(np.int32)
    num_frames = rng.integers(0, TIME + 1, ROWS).astype(np.int32)
    num_frames[:4] = [TIME, 5, 0, 0]
    num_labels[:4] = [LABELS, LABELS, 3, 0]

    def total(x):
        losses, feasible = ctc_losses(
            x, jnp.asarray(num_frames), jnp.asarray(labels), jnp.asarray(num_labels)
        )
        return losses.sum(), (losses, feasible)

    (_, (losses, feasible)), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(logits))
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    # zero_infinity makes loss and gradient of what cannot be written zero, as ours.
    expected = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(labels, dtype=torch.long),
        torch.tensor(num_frames, dtype=torch.long),
        torch.tensor(num_labels, dtype=torch.long),
        blank=0,
        reduction="none",
        zero_infinity=True,
    )
    expected.sum().backward()
    assert not bool(feasible[1:4].any())
    assert int(feasible.sum()) >= 6
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=2e-5, atol=1e-4)
    np.testing.assert_allclose(gradients, x.grad.numpy(), atol=1e-4)


def test_normalisation_of_frames_agrees_with_batch_norm():
    rng = np.random.default_rng(0)
    dim, frames, time = 5, (9, 4, 0, 7), 9
    norm = torch.nn.BatchNorm1d(dim)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(rng.uniform(0.5, 2, dim)))
        norm.bias.copy_(torch.tensor(rng.standard_normal(dim)))
    parameters = {
        "scale": jnp.asarray(norm.weight.detach().numpy()), "bias": jnp.asarray(norm.bias.detach().numpy())
    }  # fmt: skip
    _, apply = bind(lambda key: FrameNorm(dim))
    statistics = {"mean": jnp.zeros(dim), "variance": jnp.ones(dim)}
    valid = np.arange(time)[None] < np.array(frames)[:, None]

    def batch():
        return (3 * rng.standard_normal((len(frames), time, dim)) + 1).astype(np.float32)

    norm.train()
    for _ in range(4):
        x = batch()
        ours, statistics = apply(parameters, jnp.asarray(x), jnp.asarray(valid), statistics, True)
        theirs = norm(torch.tensor(x[valid]))
        np.testing.assert_allclose(np.asarray(ours)[valid], theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics["mean"], norm.running_mean.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics["variance"], norm.running_var.numpy(), rtol=1e-5)
    x = batch()
    held = torch.tensor(x[valid], requires_grad=True)
    weights = rng.standard_normal((int(valid.sum()), dim)).astype(np.float32)
    (norm(held) * torch.tensor(weights)).sum().backward()

    def weighted(x):
        y, _ = apply(parameters, x, jnp.asarray(valid), statistics, True)
        return (y[valid] * weights).sum()

    gradients = np.asarray(jax.grad(weighted)(jnp.asarray(x)))
    np.testing.assert_allclose(gradients[valid], held.grad.numpy(), rtol=1e-3, atol=1e-5)
    norm.eval()
    norm.running_mean.copy_(torch.tensor(np.asarray(statistics["mean"])))
    norm.running_var.copy_(torch.tensor(np.asarray(statistics["variance"])))
    x = batch()
    ours, after = apply(parameters, jnp.asarray(x), jnp.asarray(valid), statistics, False)
    theirs = norm(torch.tensor(x[valid])).detach().numpy()
    np.testing.assert_allclose(np.asarray(ours)[valid], theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after["variance"], statistics["variance"])


@pytest.mark.parametrize("whole", [False, True], ids=["Wav2Vec2Model", "Wav2Vec2ForPreTraining"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_saved_encoder_gives_the_same_hidden_states(name, whole, tmp_path):
    config = VARIANTS[name]
    pretraining = reference.random_model(config, 4).eval()
    model = pretraining.wav2vec2
    (pretraining if whole else model).save_pretrained(tmp_path / "model", safe_serialization=True)
    # Without an attention mask it would normalise over padding too; models with layer norm ask for one.
    extractor = transformers.Wav2Vec2FeatureExtractor(
        do_normalize=name == "layer-norm", return_attention_mask=True
    )
    extractor.save_pretrained(tmp_path / "model")
    found, parameters = read_encoder(tmp_path / "model")
    assert found.normalise_waveform == (name == "layer-norm")
    inputs = reference.make_inputs(config, [900, 640, 731, 900], 4)
    waveform = inputs["waveform"]
    if found.normalise_waveform:
        waves = [row[:length] for row, length in zip(waveform, inputs["num_samples"], strict=True)]
        waveform = extractor(waves, sampling_rate=16_000, padding=True, return_tensors="np")["input_values"]
    mask = np.arange(waveform.shape[1])[None] < inputs["num_samples"][:, None]
    with torch.no_grad():
        expected = model(
            torch.tensor(waveform), attention_mask=torch.tensor(mask.astype(np.int64))
        ).last_hidden_state.numpy()
    _, apply = bind(lambda key: Encoder(found, key))
    encoded = jax.jit(apply)(parameters, jnp.asarray(inputs["waveform"]), jnp.asarray(inputs["num_samples"]))
    valid = np.asarray(encoded.valid)
    assert valid.sum(1).tolist() == [config.num_frames(int(n)) for n in inputs["num_samples"]]
    assert relative(np.asarray(encoded.context)[valid], expected[valid]) < INTERMEDIATE_TOLERANCE

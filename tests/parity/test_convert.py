"""What convert writes opens in transformers (make parity): same hidden states, same transcripts."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs torch and transformers")

import jax
import jax.numpy as jnp
import torch
import transformers
from safetensors.numpy import load_file

from experiments.cli import main as cli
from experiments.models.recognizers import open_recognizer
from tests.configs import VARIANTS
from tests.parity import reference
from w2v_jax.interop.huggingface_folder import read_model
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import bind
from w2v_jax.recognition.ctc import collapse

pytestmark = pytest.mark.parity

TOKENS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{c: 5 + i for i, c in enumerate("ETAOIN")}}
ENCODER_PARTS = ("feature_encoder", "feature_projection", "mask_embedding", "context_network")
CLASSES = ("Wav2Vec2ForPreTraining", "Wav2Vec2Model", "Wav2Vec2ForCTC")


def convert(source, out, *options):
    assert cli.main(["convert", str(source), "--out", str(out), *options]) == 0
    return out


def save(folder, variant, kind):
    """A model of transformers with random weights, saved by itself, with its processor."""
    torch.manual_seed(0)
    config = reference.transformers_config(VARIANTS[variant])
    config.vocab_size, config.pad_token_id = len(TOKENS), 0
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=variant == "layer-norm")
    if kind != "Wav2Vec2ForCTC":
        extractor.save_pretrained(folder)
        return model
    (folder / "vocab.json").write_text(json.dumps(TOKENS))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back_opens_in_transformers(tmp_path, variant, kind):
    model = save(tmp_path / "hf", variant, kind)
    ours = convert(tmp_path / "hf", tmp_path / "ours")
    back = convert(ours, tmp_path / "back")
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "hf", back))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    opened, told = getattr(transformers, kind).from_pretrained(
        back, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    speech = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(speech, output_hidden_states=True).hidden_states
        found = opened.eval()(speech, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    # The same from our own encoder, of the folder that transformers wrote.
    held = read_model(tmp_path / "hf")
    _, apply = bind(lambda key: Encoder(held.config.replace(normalise_waveform=False), key))
    parameters = {name: value for name, value in held.parameters.items() if name in ENCODER_PARTS}
    encoded = jax.jit(apply)(parameters, jnp.asarray(speech.numpy()), jnp.array([4000]))
    with torch.no_grad():
        context = getattr(opened, "wav2vec2", opened)(speech).last_hidden_state
    np.testing.assert_allclose(encoded.context, context.numpy(), atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_transcripts_are_the_same(tmp_path, variant):
    save(tmp_path / "hf", variant, "Wav2Vec2ForCTC")
    ours = convert(tmp_path / "hf", tmp_path / "ours")
    back = convert(ours, tmp_path / "back")
    rng = np.random.default_rng(0)
    texts = set()
    for length in (8_000, 20_000):
        samples = (0.1 * rng.standard_normal(length)).astype(np.float32)
        found = {}
        for folder in (tmp_path / "hf", back):
            processor = transformers.Wav2Vec2Processor.from_pretrained(folder)
            model = transformers.Wav2Vec2ForCTC.from_pretrained(folder).eval()
            with torch.no_grad():
                logits = model(**processor(samples, sampling_rate=16_000, return_tensors="pt")).logits
            found[folder] = processor.batch_decode(logits.argmax(-1))[0]
        ids = np.asarray(jax.device_get(logits.argmax(-1)[0]))
        texts.add(found[back])
        assert found[tmp_path / "hf"] == found[back]
        assert len(set(ids.tolist())) > 2
        assert scores_as_text(ours, samples) == " ".join(found[back].split())
    assert any(texts)


def scores_as_text(run, samples):
    """By our own recognizer, the whole clip at once: `transcribe` wants frames of 20 ms, which these lack."""
    opened = open_recognizer(run)
    logits, frames = jax.jit(opened.recognizer.scores)(
        *opened.best_checkpoint(), jnp.asarray(samples)[None], jnp.array([len(samples)])
    )
    return " ".join(
        opened.tokenizer.decode(collapse(np.asarray(logits[0].argmax(-1)), int(frames[0]))).split()
    )

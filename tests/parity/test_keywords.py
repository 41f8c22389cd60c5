"""Keyword spotting against transformers' Wav2Vec2ForSequenceClassification (make parity): the same scores."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs torch and transformers")

import jax
import jax.numpy as jnp
import torch
import transformers

from experiments.models.keyword_spotters import open_keyword_spotter
from tests.configs import VARIANTS
from tests.parity import reference
from tests.parity.test_convert import convert

pytestmark = pytest.mark.parity

WORDS = ("yes", "no", "up", "down")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_agree_and_come_back(tmp_path, variant, weighted):
    torch.manual_seed(0)
    config = reference.transformers_config(VARIANTS[variant])
    config.id2label = dict(enumerate(WORDS))
    config.label2id = {word: index for index, word in enumerate(WORDS)}
    config.use_weighted_layer_sum, config.classifier_proj_size = weighted, 6
    model = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "hf")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(tmp_path / "hf")
    ours = convert(tmp_path / "hf", tmp_path / "ours")
    back = convert(ours, tmp_path / "back")
    opened = open_keyword_spotter(ours)
    assert opened.classes == list(WORDS)
    speech = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    again = transformers.Wav2Vec2ForSequenceClassification.from_pretrained(back).eval()
    assert again.config.id2label == dict(enumerate(WORDS))
    with torch.no_grad():
        expected, returned = model(speech).logits.numpy(), again(speech).logits.numpy()
    found = jax.jit(opened.spotter.scores)(
        *opened.best_checkpoint(), jnp.asarray(speech.numpy()), jnp.array([4000])
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(returned, expected, atol=1e-6)

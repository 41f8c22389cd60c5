"""Long clips of dev and test are recognised in windows, beside short ones in batches."""

import jax
import numpy as np
import pytest

from experiments.data.transcribed import Transcribed
from experiments.recognition import scoring
from experiments.recognition.scoring import Scorer, evaluation_clips
from tests.configs import SMALL
from w2v_jax.data.common_voice import Clip
from w2v_jax.data.tables import ClipRow
from w2v_jax.recognition.ctc import RecognizerConfig, recognizer
from w2v_jax.recognition.heads import HeadConfig
from w2v_jax.recognition.training import TrainingState
from w2v_jax.text.tokenizers import CharacterTokenizer

SECONDS = (1.0, 45.0, 1.5)
TEXTS = ["ab", "ab ba ab", "b"]


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    clips = [
        Clip(
            row=ClipRow(client_id=f"speaker_{index}", path=f"{index}.flac", sentence=text),
            samples=(rng.normal(size=round(16_000 * seconds)) * 3e3).astype(np.int16),
        )
        for index, (seconds, text) in enumerate(zip(SECONDS, TEXTS, strict=True))
    ]
    return Transcribed(clips=clips, texts=TEXTS, dropped={}, source="made")


@pytest.fixture(scope="module")
def made():
    tokenizer = CharacterTokenizer("ab ")
    head = HeadConfig(num_tokens=tokenizer.num_tokens, num_blocks=0, width=8)
    config = RecognizerConfig(model=SMALL, head=head, features="log-mel")
    recognized = recognizer(config)
    parameters, statistics = recognized.objective.init(jax.random.key(0))
    return recognized, tokenizer, TrainingState(parameters, statistics, None)


def test_a_long_clip_is_recognised_in_windows(split, made, monkeypatch):
    recognized, tokenizer, state = made
    heard = []

    def scores(parameters, statistics, waveform, num_samples):
        heard.append(waveform.shape[1])
        return recognized.scores(parameters, statistics, waveform, num_samples)

    labels = [tokenizer.encode(text) for text in split.texts]
    clips = evaluation_clips(split, labels, 320, batch_samples=64_000, num_buckets=1)
    assert (clips.whole, clips.long) == ([0, 2], [1])
    found = Scorer(recognized._replace(scores=scores), tokenizer).recognise(state, clips, split)
    assert max(heard) <= scoring.WINDOW_SECONDS * 16_000
    assert found.sums["audio_seconds"] == pytest.approx(sum(SECONDS), rel=1e-5)
    assert found.sums["infeasible"] == 0
    assert [error.length for error in found.characters] == [len(text) for text in TEXTS]
    # The whole clip in one batch gives another normalisation at most, and the same scale of loss.
    monkeypatch.setattr(scoring, "LONGEST_WHOLE_SECONDS", 100.0)
    whole = evaluation_clips(split, labels, 320, batch_samples=64_000, num_buckets=1)
    assert whole.long == []
    reference = Scorer(recognized, tokenizer).recognise(state, whole, split)
    assert found.sums["loss"] == pytest.approx(reference.sums["loss"], rel=0.05)
    assert found.hypotheses[0] == reference.hypotheses[0]
    assert found.hypotheses[2] == reference.hypotheses[2]
    assert len(found.hypotheses[1]) > 10 * len(found.hypotheses[0])


def test_windows_are_for_frames_that_divide_their_context(split, made):
    tokenizer = made[1]
    labels = [tokenizer.encode(text) for text in split.texts]
    assert evaluation_clips(split, labels, 300, batch_samples=64_000, num_buckets=1).long == []

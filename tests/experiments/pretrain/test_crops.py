"""Training crops of a run that names no length: chosen from the clips, recorded, kept."""

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.pretrain import run as pretraining
from experiments.pretrain.crops import MOST_PADDING, choose, padding, shortest_crop
from experiments.process.files import read_json, write_json
from w2v_jax.config import BASE, BEST_RQ_TINY, TINY
from w2v_jax.data.common_voice import lengths
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus


@pytest.mark.parametrize(
    ("clips", "crop"),
    [
        ([[1.0] * 9], 1.0),  # 1.1 s would pad less than a tenth too, and hold nothing more
        ([[1.02] * 9], 1.1),
        ([[9.0] * 9], 2.0),
        ([[1.0] * 2 + [4.0] * 8], 2.0),  # 0.2 of the clips are half as long as the crop: just a tenth
        ([[1.0] * 3 + [4.0] * 7], 1.5),
        ([[1.0] * 2, [4.0] * 8], 1.2),  # clients fill equally many batches, however few clips they have
        ([[0.1] * 9], 0.4),
    ],
)
def test_the_longest_crop_that_leaves_a_tenth_empty(clips, crop):
    seconds = [np.array(held) for held in clips]
    assert choose(2.0, seconds, 0.4) == crop
    if crop > 0.4:
        assert padding(seconds, crop) <= MOST_PADDING
    if crop < 2.0 and max(map(max, clips)) > crop + 0.1:
        assert padding(seconds, crop + 0.1) > MOST_PADDING


def test_a_crop_holds_two_mask_spans():
    for config in (TINY, BASE, BEST_RQ_TINY):
        shortest = shortest_crop(config)
        frames = [config.num_frames(round(16_000 * seconds)) for seconds in (shortest - 0.1, shortest)]
        assert frames[0] < 2 * config.mask_span <= frames[1]
    assert choose(2.0, [np.array([0.3])], shortest_crop(TINY)) == shortest_crop(TINY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = SyntheticConfig(speakers=6, clips_per_speaker=4, words=10, words_per_sentence=(1, 2), seed=4)
    return write_corpus(tmp_path_factory.mktemp("corpus"), config)


@pytest.fixture
def pretrain(corpus, monkeypatch):
    """The command without its training: it returns the run, or the exit status of a refusal."""

    def run(out, *options):
        begun = []
        monkeypatch.setattr(pretraining.Pretraining, "run", lambda made: begun.append(made))
        words = ["--data", str(corpus), "--out", str(out), "--clients", "2", "--heldout-speakers", "2"]
        status = cli.main(["pretrain", *words, "--lanes", "1", *options])
        return begun[0] if begun else status

    return run


def test_a_run_records_the_crop_that_its_clips_gave(pretrain, tmp_path, capsys):
    out = tmp_path / "run"
    run = pretrain(out)
    crop = read_json(out / "config.json")["settings"]["crop_seconds"]
    assert 0.3 <= crop < 2.0
    assert run.work.crop_samples == round(16_000 * crop)
    seconds = [lengths(clips) / 16_000 for clips in run.data.clients.values()]
    assert padding(seconds, crop) <= MOST_PADDING < padding(seconds, 2.0)
    assert any(
        f"crops of {crop:g} s in place of the recipe's 2 s" in line for line in pretraining.notes(run, None)
    )
    again = pretrain(out)
    assert again.settings == run.settings
    assert again.crop_notes == []
    # A given length counts, and another one than the run's is refused.
    assert pretrain(tmp_path / "given", "--seconds", "1.5").settings.crop_seconds == 1.5
    capsys.readouterr()
    assert pretrain(out, "--seconds", "1.5") == 2
    assert f"crop_seconds: {crop} there, 1.5 here" in capsys.readouterr().err


def test_a_run_of_an_older_version_keeps_the_crop_of_its_recipe(pretrain, tmp_path):
    pretrain(tmp_path / "run")
    config = read_json(tmp_path / "run" / "config.json")
    config["settings"]["crop_seconds"] = 2.0
    write_json(tmp_path / "run" / "config.json", config)
    run = pretrain(tmp_path / "run")
    assert run.settings.crop_seconds == 2.0
    assert run.work.crop_samples == 32_000

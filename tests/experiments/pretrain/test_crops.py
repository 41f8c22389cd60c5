"""The crop that a run takes where --crop-seconds is left out."""

import dataclasses

import numpy as np
import pytest

from experiments.pretrain.crops import fit_crop, padded_share, settle, shortest_crop_seconds
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.settings import Settings, resolve
from experiments.runs.folder import RunFolder
from w2v_jax.config import BEST_RQ_TINY, TINY
from w2v_jax.data.common_voice import Clip
from w2v_jax.data.tables import ClipRow


def samples(*seconds):
    return np.array([round(16_000 * value) for value in seconds], np.int64)


def test_the_padding_of_a_crop():
    assert padded_share(samples(1.0, 3.0), 2.0) == pytest.approx(0.25)
    assert padded_share(samples(2.0, 3.0), 2.0) == 0.0


@pytest.mark.parametrize("config", [TINY, BEST_RQ_TINY])
def test_the_longest_crop_with_at_most_a_tenth_of_padding(config):
    assert fit_crop(samples(*[1.0] * 5), 2.0, config)[0] == 1.1
    long = samples(1.9, 5.0)
    assert fit_crop(long, 2.0, config) == (2.0, None)
    mixed = samples(0.9, 1.4, 1.6, 1.8)
    chosen, note = fit_crop(mixed, 2.0, config)
    assert padded_share(mixed, chosen) <= 0.1 < padded_share(mixed, chosen + 0.1)
    assert f"crops are {chosen:g} s long" in note
    assert "the recipe's 2 s" in note


@pytest.mark.parametrize("config", [TINY, BEST_RQ_TINY])
def test_a_crop_holds_two_mask_spans(config):
    shortest = shortest_crop_seconds(config)
    frames = [config.num_frames(round(16_000 * value)) for value in (shortest - 0.1, shortest)]
    assert frames[0] < 2 * config.mask_span <= frames[1]
    chosen, note = fit_crop(samples(shortest / 2), 2.0, config)
    assert chosen == shortest
    assert "the shortest that holds two mask spans" in note


def test_the_folder_of_a_new_run_keeps_the_crop(tmp_path):
    settings = resolve(PretrainArguments(model="tiny"))
    row = ClipRow(path="a.wav", client_id="one")
    clips = [Clip(row=row, samples=np.zeros(16_000, np.int16))]
    folder = RunFolder(tmp_path / "run", settings, {})
    assert not folder.continues
    assert settle(Settings(**settings), clips, folder, fits=False) == (Settings(**settings), None)
    fitted, note = settle(Settings(**settings), clips, folder, fits=True)
    assert fitted.crop_seconds == 1.1
    assert note is not None
    assert dataclasses.asdict(fitted) == settings | {"crop_seconds": 1.1}
    folder.begin()
    folder.close()
    again = RunFolder(tmp_path / "run", settings, {}, keeps=["crop_seconds"])
    assert again.continues
    assert again.settings["crop_seconds"] == 1.1
    assert settle(Settings(**settings), clips, again, fits=True) == (Settings(**settings), None)
    again.close()

"""The study of lengths: equal audio whatever the crops, and a report that follows its numbers."""

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.study import length as study_length
from experiments.study import length_report
from experiments.study.length import CROP_SECONDS, SCALES_OF_LENGTH, steps_of


def test_all_lengths_hear_the_same_audio():
    clips = np.array([1.5, 3.0, 4.0, 9.0])
    scale = SCALES_OF_LENGTH["small"]
    for crop in CROP_SECONDS:
        heard = (
            steps_of(crop, clips, scale) * scale.rounds * round(8.0 / crop) * np.minimum(clips, crop).mean()
        )
        assert heard == pytest.approx(scale.audio_seconds, rel=0.01)
    assert steps_of(8.0, clips, scale) > steps_of(1.0, clips, scale)


def fabricated(cers: tuple[float, ...]) -> dict:
    rows = [
        {
            "crop_seconds": crop,
            "seed": seed,
            "audio_seconds": 100.0,
            "updates": 10,
            "padded_share": 0.1,
            "seconds_per_audio_second": 0.005,
            "heldout_loss": 4.0,
            "heldout_accuracy": 0.1,
            "wer": 1.0,
            "cer": cer + 0.001 * seed,
            "loss": 2.0,
        }
        for crop, cer in zip(CROP_SECONDS, cers, strict=True)
        for seed in (0, 1)
    ]
    return {
        "scale": {"audio_seconds": 100.0},
        "data": "corpora/en",
        "seeds": 2,
        "jobs": 2,
        "clip_seconds_mean": 4.0,
        "rows": rows,
        "costs": [
            {"crop_seconds": c, "batch": 1, "flops_per_crop_second": 1e9 * c, "temporary_bytes": 1e6}
            for c in CROP_SECONDS
        ],
        "provenance": {"cell_commits": ["abc"], "device": "", "cores": [2], "command": ""},
    }


def test_the_report_follows_the_numbers(tmp_path):
    result = fabricated((0.8, 0.7, 0.75, 0.9))
    study_length.write(result, tmp_path)
    assert (tmp_path / "length.png").stat().st_size > 10_000
    first = length_report.sentences(result)[0]
    assert "is that of 2 s (70." in first
    assert "of 8 s (90." in first
    assert "a difference of 20.0 ± 0.0 points (shown)" in first
    assert "8.00 times" in length_report.sentences(result)[-1]
    assert length_report.sentences(result)[4].startswith("6 of the 18 differences")


def test_a_length_is_lower_only_by_its_interval_over_seeds():
    result = fabricated((0.8, 0.7, 0.75, 0.9))
    for row in result["rows"]:
        row["cer"] += 0.02 * row["seed"] * (row["crop_seconds"] == 2.0)  # each length has a small spread
    first = length_report.sentences(result)[0]
    assert "a difference of 19.0 ± 1.4 points (no difference shown)" in first


@pytest.mark.slow
def test_costs_grow_with_length():
    one, eight = study_length.costs(1.0), study_length.costs(8.0)
    assert one["batch"] == 8
    assert eight["batch"] == 1
    assert eight["flops_per_crop_second"] > one["flops_per_crop_second"]  # attention


def test_mistakes_are_one_line(capsys, tmp_path):
    assert cli.main(["study", "length", "--data", "nowhere", "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "no such folder: nowhere" in err
    assert err.count("\n") == 1

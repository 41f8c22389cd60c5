"""The doctor raises no alarm on healthy runs: those that were kept, and drawn ones of other sizes."""

import statistics

import pytest

from experiments.doctor.bands import (
    BANDS,
    BASE,
    BEST_RQ_TINY_FEDERATED,
    LOG_MEL_TINY_FEDERATED,
    band_position,
    measured,
    position_note,
)
from experiments.doctor.diagnosis import diagnose
from tests.experiments.doctor import kept

HEALTHY = kept.healthy()


def test_they_are_many_and_of_every_kind():
    assert len(HEALTHY) >= 30
    assert {curves.kind for curves in HEALTHY.values()} == {"wav2vec2", "best-rq", "ctc", "keywords"}
    assert len([name for name in HEALTHY if not name.startswith("drawn")]) == 30
    assert all(curves.points for curves in HEALTHY.values())


@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm(name):
    diagnosis = diagnose(HEALTHY[name])
    assert (diagnosis.verdict, [held.name for held in diagnosis.findings]) == ("healthy", [])


def test_half_of_a_healthy_run_is_healthy_too():
    for name, curves in HEALTHY.items():
        half = kept.cut(curves, 0.5)
        assert diagnose(half).verdict == "healthy", name


def test_bands_are_interpolated_and_end():
    assert BASE.at(50_000) == (0.491, 0.011)
    assert BASE.at(75_000) == pytest.approx((0.514, 0.011 - 0.004 / 14))
    assert BASE.at(400_000) == pytest.approx((0.629, 0.007))
    assert BASE.at(49_999) is None
    assert BASE.at(400_001) is None
    for band in BANDS.values():
        assert len(band.updates) == len(band.means) == len(band.spreads)
        assert list(band.updates) == sorted(band.updates)


@pytest.mark.parametrize("band", [BEST_RQ_TINY_FEDERATED, LOG_MEL_TINY_FEDERATED])
def test_bands_of_log_mel_models_are_those_of_the_kept_runs(band):
    runs = [curves for curves in kept.of_representations().values() if BANDS[curves.size, True] is band]
    held = [measured(curves, band.measure) for curves in runs]
    assert len(held) == 5
    assert all(steps == list(band.updates) for steps, _ in held)
    for place, (mean, spread) in enumerate(zip(band.means, band.spreads, strict=True)):
        values = [ratios[place] for _, ratios in held]
        assert mean == pytest.approx(statistics.mean(values), abs=0.006)
        assert spread == pytest.approx(statistics.stdev(values), abs=0.006)


def test_a_run_is_told_where_it_lies_beside_its_band():
    curves = kept.drawn("base", 0, updates=400_000, points=8)
    value, mean, spread = band_position(curves)
    assert (mean, spread) == pytest.approx((0.629, 0.007))
    assert abs(value - mean) < 3 * spread
    assert "0.629 ± 0.007" in position_note(curves)
    assert position_note(kept.drawn("large", 0)) is None

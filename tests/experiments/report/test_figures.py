"""Figures: axes by row and column or by name, whole ticks, labels that do not overlap, Pareto fronts."""

from pathlib import Path

import pytest

from experiments.report.figures import (
    DOTS_PER_INCH,
    PAGE_INCHES,
    count_axis,
    label_ends,
    message,
    pareto_front,
    picture,
    spread_apart,
)


def test_ticks_of_rounds_are_whole(tmp_path):
    with picture(tmp_path / "rounds.png", figsize=(8, 3)) as axis:
        axis.plot([0, 1, 2], [3.0, 2.0, 1.0])
        assert any(tick != round(tick) for tick in axis.get_xticks())  # as matplotlib has them
        count_axis(axis)
        assert all(tick == round(tick) for tick in axis.get_xticks())


def test_axes_by_name(tmp_path):
    with picture(tmp_path / "named.png", mosaic=(["top", "top"], ["left", "right"])) as axes:
        assert set(axes) == {"top", "left", "right"}
    assert (tmp_path / "named.png").read_bytes().startswith(b"\x89PNG")


def test_places_move_apart_in_order_and_no_further_than_needed():
    assert spread_apart([0.1, 0.5, 0.9], 0.2) == pytest.approx([0.1, 0.5, 0.9])
    assert spread_apart([0.5, 0.5, 0.1], 0.2) == pytest.approx([0.4, 0.6, 0.1])
    assert spread_apart([0.6, 0.5, 0.55], 0.2) == pytest.approx([0.75, 0.35, 0.55])
    assert spread_apart([], 0.2) == []


def test_a_point_is_on_the_front_unless_another_is_as_good_in_both():
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.5, 2.0), (2.0, 4.0), (4.0, 0.5)]
    assert pareto_front(points) == [1, 2, 0, 5]
    assert pareto_front([]) == []


def test_labels_stand_beside_the_last_known_points_of_their_lines(tmp_path):
    with picture(tmp_path / "ends.png", figsize=(4, 3)) as axis:
        axis.plot([0, 1, 2], [1.0, 8.0, float("nan")], label="high")
        axis.errorbar([0, 1], [5.0, 2.0], [1.0, 1.0], label="low")
        axis.plot([0, 1], [0.0, 10.0])  # without a label
        axis.set_ylim(0, 10)
        label_ends(axis)
        message(axis, "Two lines.\n" + "long " * 50)
        found = {text.get_text(): text.get_position()[1] for text in axis.texts}
        assert found == pytest.approx({"high": 0.8, "low": 0.2})
        assert len(axis.figure.get_supxlabel().splitlines()) > 3


RESULTS = Path(__file__).parents[3] / "docs" / "results"
# The numbers behind these older pictures were not kept, so that they cannot be drawn again.
NOT_KEPT = {"italian/fold.png", "italian/keep.png", "mechanism/quiet-loss-weighted-t1-0.png"}


def fits_a_page(png):
    """Tell whether a picture is at most as wide as a page, by the header of its PNG."""
    return int.from_bytes(png.read_bytes()[16:20]) <= PAGE_INCHES * DOTS_PER_INCH


def test_kept_pictures_are_narrow_enough_for_a_page():
    pictures = list(RESULTS.rglob("*.png"))
    assert len(pictures) > 30
    wide = {path.relative_to(RESULTS).as_posix() for path in pictures if not fits_a_page(path)}
    assert wide <= NOT_KEPT

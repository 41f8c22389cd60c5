"""Figures: axes by row and column or by name, and ticks at whole numbers."""

from experiments.report.figures import count_axis, picture


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

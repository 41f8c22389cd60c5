import pytest

from profiling import feasibility
from profiling.devices import DEVICES, PAPER_CLASSES, in_paper_class, named_like


def test_three_quarters_of_a_boards_memory_may_be_used_and_half_of_a_phones():
    assert feasibility.usable_bytes(DEVICES["xavier-nx"]) == 6 * 2**30
    assert feasibility.usable_bytes(DEVICES["tensor"]) == 4 * 2**30
    assert feasibility.usable_bytes(DEVICES["xavier-nx"], headroom=0.5) == 4 * 2**30


def test_what_is_unknown_stays_unknown():
    assert feasibility.usable_bytes(DEVICES["a15"]) is None
    assert feasibility.verdict(1e9, None) == "unknown"
    assert feasibility.verdict(None, 10**9) == "unknown"
    assert feasibility.verdict(1e9, 10**9) == "fits"
    assert feasibility.verdict(1e9 + 1, 10**9) == "too large"


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        (0.90e9, "fits"),
        (0.92e9, "borderline"),
        (1e9, "borderline"),
        (1.09e9, "borderline"),
        (1.11e9, "too large"),
    ],
)
def test_a_verdict_inside_the_error_of_what_is_needed_is_borderline(needed, expected):
    assert feasibility.verdict(needed, 10**9, error=0.1) == expected


def test_memory_is_in_binary_units_and_the_papers_class_is_a_row_of_its_own():
    assert DEVICES["xavier-agx"].memory_bytes == 32 * 2**30
    assert DEVICES["rpi-4"].memory_bytes == DEVICES["rpi-5"].memory_bytes
    for name, device in DEVICES.items():
        assert device.memory_bytes is None or device.memory_bytes % 2**30 == 0, name
    variants = {name: device for name, device in DEVICES.items() if device.variant_of}
    assert set(variants) == {"xavier-agx-paper", "a15-paper", "tensor-paper", "snapdragon-870-paper"}
    for name, (_, most) in PAPER_CLASSES.items():
        held = in_paper_class(name)
        assert held.memory_bytes == most * 2**30
        assert ("the paper's class" in held.title) == (held.memory_bytes != DEVICES[name].memory_bytes)
    assert in_paper_class("a40") is DEVICES["a40"]
    assert named_like("NVIDIA Jetson AGX Xavier Developer Kit") == "xavier-agx"


def test_the_longest_clip_is_where_memory_ends():
    def needed(seconds):
        return 1e9 + 1e8 * seconds + 1e7 * seconds**2

    found = feasibility.longest(needed, needed(7.0), 0.5, 60.0)
    assert found == pytest.approx(7.0, abs=0.01)
    assert found is not None
    assert needed(found) <= needed(7.0)
    assert feasibility.longest(needed, 1e12, 0.5, 60.0) == 60.0
    assert feasibility.longest(needed, 1e9, 0.5, 60.0) is None


def test_doubling_years_of_the_papers_projection():
    # facts: five years at 18 months give 10.1 times; gaps of 5.4 to 6.6 take 3.7 to 4.1 years.
    assert feasibility.growth(5.0, 18.0) == pytest.approx(10.1, abs=0.05)
    assert feasibility.years_to_reach(5.43, 18.0) == pytest.approx(3.7, abs=0.05)
    assert feasibility.years_to_reach(6.59, 18.0) == pytest.approx(4.1, abs=0.05)
    assert feasibility.years_to_reach(0.5, 24.0) == -2.0


def test_bytes_of_audio_and_when_federating_has_moved_more():
    share = 28.9 * 3600
    assert feasibility.audio_bytes(share) == pytest.approx(3.33e9, rel=0.01)
    assert feasibility.audio_bytes(share, compressed=True) == pytest.approx(0.62e9, rel=0.01)
    # One round of base moves more than the compressed audio of a ten-client share, five more than its PCM.
    assert feasibility.break_even_rounds(0.76e9, feasibility.audio_bytes(share, compressed=True)) == 2 - 1
    assert feasibility.break_even_rounds(0.76e9, feasibility.audio_bytes(share)) == 5
    assert feasibility.break_even_rounds(0.76e9, feasibility.audio_bytes(share / 10)) == 1
    assert feasibility.break_even_rounds(1.0, 1.0) == 2  # as much is not more


def test_a_link_takes_its_time_each_way():
    link = feasibility.Link("x", 100, 50, "")
    assert link.seconds(100e6 / 8, 50e6 / 8) == pytest.approx(2.0)
    assert all(link.source for link in feasibility.LINKS.values())


def test_boards_are_known_by_their_own_names():
    assert named_like("NVIDIA Jetson Xavier NX Developer Kit\0") == "xavier-nx"
    assert named_like("NVIDIA Jetson AGX Orin Developer Kit") == "orin-agx"
    assert named_like("Jetson-AGX") == "xavier-agx"
    assert named_like("NVIDIA Orin NX Developer Kit") == "orin-nx"
    assert named_like("NVIDIA Jetson AGX Thor Developer Kit") == "thor"
    assert named_like("Raspberry Pi 4 Model B Rev 1.4") == "rpi-4"
    assert named_like("Raspberry Pi 5 Model B Rev 1.0") == "rpi-5"
    assert named_like("Some Board") is None

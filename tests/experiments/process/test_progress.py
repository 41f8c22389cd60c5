"""The time left that a run prints: without compiling, with evaluations."""

import pytest

from experiments.process.progress import Progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def said(capfd):
    return [line.split("  ")[-1] for line in capfd.readouterr().out.splitlines()]


def test_the_first_round_compiles_and_says_nothing_of_the_time_left(clock, capfd):
    progress = Progress(10, 0, clock=clock)
    for done, seconds in ((1, 300.0), (2, 10.0), (3, 10.0), (4, 40.0)):
        clock.now += seconds
        progress.report(done, "loss", seconds)
    # The median: one slow round does not count four times.
    assert said(capfd) == [
        "time left unknown: the first rounds compile",
        "1 min 20 s left",
        "1 min 10 s left",
        "1 min 0 s left",
    ]


def test_evaluations_between_reports_count_by_their_mean(clock, capfd):
    progress = Progress(14, 4, clock=clock)
    for done, seconds, evaluation in ((5, 90.0, 50.0), (6, 2.0, 0.0), (7, 2.0, 6.0), (8, 2.0, 0.0)):
        clock.now += seconds + evaluation
        progress.report(done, "loss", seconds)
    assert said(capfd)[-1] == "24 s left"  # six rounds of 2 s, and 2 s of evaluation each


def test_later_updates_that_compile_are_left_out(clock, capfd):
    progress = Progress(60, 0, "update", clock=clock)
    for done, seconds, compiling in ((20, 100.0, 80.0), (40, 60.0, 40.0), (60, 20.0, 0.0)):
        clock.now += seconds
        progress.report(done, "loss", seconds, compiling)
    assert said(capfd) == ["time left unknown: the first updates compile", "20 s left", "0 s left"]


def test_a_run_that_was_compiled_before_counts_its_first_report(clock, capfd):
    progress = Progress(30, 0, "update", compiled=True, clock=clock)
    clock.now += 20.0
    progress.report(10, "loss", 20.0)
    assert said(capfd) == ["40 s left"]

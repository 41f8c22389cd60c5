"""TensorBoard's event files: the numbers of metrics.jsonl, each step once whatever became of the run."""

import time

import numpy as np
import pytest

from experiments.runs.folder import EVENTS, RunFolder, read_metrics
from experiments.runs.metric_columns import grouped_name, scalars
from experiments.runs.tensorboard import FILES, read_events

SETTINGS = {"rounds": 9}


def summaries(folder):
    """The events with numbers of a run, in the order in which TensorBoard reads its files."""
    files = sorted((folder / EVENTS).glob(FILES))
    events = [event for path in files for event, _ in read_events(path)]
    return [event for event in events if event.HasField("summary")]


def assert_events_are_metrics(folder, unit):
    """Every finite number of every line is there once, in single precision, and nothing else is."""
    lines, events = read_metrics(folder / "metrics.jsonl"), summaries(folder)
    assert lines
    assert [event.step for event in events] == [line[unit] for line in lines]
    for line, event in zip(lines, events, strict=True):
        found = [(value.tag, value.simple_value) for value in event.summary.value]
        assert len(found) == len(dict(found))
        expected = {
            grouped_name(column): float(np.float32(value))
            for column, value in line.items()
            if column != unit and type(value) in (int, float)
        }
        assert dict(found) == expected
    times = [event.wall_time for event in events]
    assert times == sorted(times)
    assert times[-1] <= time.time()


def opened(path):
    run = RunFolder(path / "run", SETTINGS, {})
    run.begin()
    return run


def line(number, **columns):
    return {"round": number, "loss": 4.0 - number / 10, "round_seconds": 100.0} | columns


def test_a_run_that_goes_on_has_each_step_once_and_keeps_its_wall_times(tmp_path):
    run = opened(tmp_path)
    run.rewind(0)
    for number in range(1, 5):
        run.append(line(number, heldout_loss=3.0, client_weights=[0.5, 0.5]))
    run.close()
    before = {event.step: event.wall_time for event in summaries(run.path)}
    assert_events_are_metrics(run.path, "round")

    run = opened(tmp_path)
    run.rewind(2)  # rounds 3 and 4 were past the last checkpoint
    assert_events_are_metrics(run.path, "round")
    assert {event.step: event.wall_time for event in summaries(run.path)} == {1: before[1], 2: before[2]}
    run.append(line(3))
    run.close()
    assert_events_are_metrics(run.path, "round")
    *_, newest = sorted((run.path / EVENTS).glob(FILES))
    (first, _), (second, _), (third, _) = read_events(newest)
    assert first.file_version == "brain.Event:2"
    # What a TensorBoard that is open has of the steps from here on is forgotten.
    assert (second.session_log.status, second.step, third.step) == (second.session_log.START, 3, 3)


def test_files_that_a_kill_cut_short_are_read_up_to_there(tmp_path):
    run = opened(tmp_path)
    run.rewind(0)
    run.append(line(1))
    run.append(line(2))
    run.close()
    (path,) = (run.path / EVENTS).glob(FILES)
    whole, held = read_events(path), path.read_bytes()
    assert whole[-1][1] == len(held)
    for cut in (1, 8, 20):
        path.write_bytes(held[:-cut])
        assert read_events(path) == whole[:-1]
    path.write_bytes(held[:-3] + b"\0\0\0")
    assert read_events(path) == whole[:-1]
    run = opened(tmp_path)
    run.rewind(1)
    run.close()
    assert path.read_bytes() == held[: whole[-2][1]]
    assert_events_are_metrics(run.path, "round")


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_lines_that_the_files_lost_are_written_anew(tmp_path, damage):
    run = opened(tmp_path)
    run.rewind(0)
    for number in (1, 2, 3):
        run.append(line(number))
    run.close()
    first = summaries(run.path)[0].wall_time
    (path,) = (run.path / EVENTS).glob(FILES)
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    run = opened(tmp_path)
    run.rewind(3)
    run.close()
    assert_events_are_metrics(run.path, "round")
    if damage == "cut short":  # what could be read is still known
        assert summaries(run.path)[0].wall_time == first
    newest = max((run.path / EVENTS).glob(FILES))
    (_, _), (start, _), *_ = read_events(newest)
    assert (start.session_log.status, start.step) == (start.session_log.START, 1)


def test_a_run_of_before_there_were_events_gets_them(tmp_path):
    run = opened(tmp_path)
    for number in (1, 2, 3):
        run.append(line(number, evaluation_seconds=20.0))
    assert not (run.path / EVENTS).exists()
    began = time.time()
    run.rewind(3)
    run.close()
    assert_events_are_metrics(run.path, "round")
    times = [event.wall_time for event in summaries(run.path)]
    assert np.diff(times) == pytest.approx([120.0, 120.0])
    assert times[-1] == pytest.approx(began, abs=60.0)


def test_a_process_that_does_not_write_writes_no_events(tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS, {}, writes=False)
    run.rewind(0)
    run.append(line(1))
    run.close()
    assert not run.path.exists()


def test_values_that_are_no_finite_numbers_are_left_out():
    held = line(1, contrastive=float("nan"), prob_perplexity=None, clients=3, client_ids=["a"], late=True)
    assert scalars(held, "round") == {
        "train/loss": 3.9, "cost/round_seconds": 100.0, "federation/clients": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("loss", "train/loss"),
        ("heldout_accuracy", "heldout/accuracy"),
        ("chance_accuracy", "heldout/chance_accuracy"),
        ("dev_wer", "dev/wer"),
        ("late_clients", "federation/late_clients"),
        ("epsilon", "privacy/epsilon"),
        ("bytes_up", "cost/bytes_up"),
        ("updates", "progress/updates"),
        ("something_new", "train/something_new"),
    ],
)
def test_columns_are_grouped(column, name):
    assert grouped_name(column) == name

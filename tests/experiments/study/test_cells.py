"""Cells of a study: real commands in processes of their own, skipped when finished, told when broken."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.process.files import read_json, write_json
from experiments.study import cells
from experiments.study.cells import Cell, run_cells
from w2v_jax.errors import UserError

SYNTH = ("data", "synth", "--clips-per-speaker", "1", "--words", "5")
TABLE = "xx/validated.tsv"


def synth(folder, name, speakers):
    arguments = (*SYNTH, "--speakers", str(speakers))
    return Cell(name=name, arguments=arguments, out=folder / name, product=TABLE)


def failing(folder):
    return Cell(name="broken", arguments=(*SYNTH, "--speakers", "0"), out=folder / "broken", product=TABLE)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    cells = [synth(folder, "first", 3), synth(folder, "second", 4)]
    return cells, run_cells(cells, "two corpora")


def test_each_cell_runs_with_its_arguments_and_leaves_log_and_seconds(two):
    cells, seconds = two
    assert list(seconds) == ["first", "second"]
    for cell, speakers in zip(cells, (3, 4), strict=True):
        assert f"{speakers} clips" in cell.log.read_text()
        record = read_json(cell.out / "cell.json")
        assert record["seconds"] == seconds[cell.name] > 0
        assert record["command"].startswith("w2v-jax data synth --clips-per-speaker 1")


def test_finished_cells_are_not_run_again(two, capsys):
    cells, seconds = two
    logs = [cell.log.read_text() for cell in cells]
    assert run_cells(cells, "two corpora") == seconds
    assert [cell.log.read_text() for cell in cells] == logs
    assert capsys.readouterr().out == "two corpora: 2 cells, 2 of them finished before\n"


def test_a_missing_product_is_made_again_and_seconds_add_up(two, tmp_path, capsys):
    cell = synth(tmp_path, "again", 3)
    first = run_cells([cell], "again")["again"]
    (tmp_path / "again" / TABLE).unlink()
    assert run_cells([cell], "again")["again"] > first
    assert cell.log.read_text().count("3 clips") == 2
    assert "cell 1/1 again: " in capsys.readouterr().out


def test_a_folder_of_other_options_is_refused(two):
    (cell, _), _ = two
    other = Cell(name="first", arguments=(*SYNTH, "--speakers", "9"), out=cell.out, product=TABLE)
    with pytest.raises(UserError, match="made by another command"):
        run_cells([other], "other")


def test_an_option_that_was_spelt_otherwise_is_the_same_command(tmp_path, capsys):
    words = ("pretrain", "--batch", "2", "--seconds=0.6")
    cell = Cell(name="renamed", arguments=words, out=tmp_path / "renamed", product="report.html")
    cell.out.mkdir()
    (cell.out / "report.html").touch()
    old = cell.command.replace("--batch", "--batch-size").replace("--seconds", "--crop-seconds")
    write_json(cell.record, {"command": old, "seconds": 3.0})
    assert run_cells([cell], "one") == {"renamed": 3.0}
    write_json(cell.record, {"command": old.replace("0.6", "0.8"), "seconds": 3.0})
    with pytest.raises(UserError, match="made by another command"):
        run_cells([cell], "one")


def test_a_failing_cell_names_itself_its_last_words_and_the_way_on(tmp_path):
    later = synth(tmp_path, "later", 3)
    with pytest.raises(UserError) as caught:
        run_cells([failing(tmp_path), later], "broken")
    text = str(caught.value)
    assert "cell broken ended with status 2" in text
    assert "--speakers must be at least 3, got 0" in text
    assert "run the same command to continue" in text
    assert not later.out.exists()


def test_the_last_words_are_those_of_this_attempt(tmp_path):
    cell = Cell(name="nothing", arguments=("--help",), out=tmp_path / "nothing", product="never")
    cell.log.write_text("words of an earlier attempt\n")
    with pytest.raises(UserError, match="ended without never") as caught:
        run_cells([cell], "nothing")
    assert "earlier" not in str(caught.value)


def test_an_interrupt_stops_the_child_and_passes_on(tmp_path, monkeypatch):
    children = []
    popen = subprocess.Popen

    def sleeping(argv, **options):
        code = "import time; print('asleep', flush=True); time.sleep(600)"
        children.append(popen([sys.executable, "-c", code], **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", sleeping)
    cell = synth(tmp_path, "slow", 3)
    cell.out.mkdir()
    (cell.out / "half").write_text("what a command leaves when it is stopped")

    def interrupt():
        while not (cell.log.exists() and "asleep" in cell.log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_cells([cell], "slow")
    thread.join()
    assert children[0].poll() is not None
    assert read_json(cell.record)["seconds"] > 0


def test_cells_side_by_side_all_run_and_a_failure_stops_the_others(tmp_path):
    cells = [synth(tmp_path, name, 3) for name in ("a", "b", "c")]
    assert set(run_cells(cells, "three corpora", jobs=2)) == {"a", "b", "c"}
    assert all(cell.finished for cell in cells)
    # Would take minutes; the broken one ends it.
    long = Cell(
        name="long",
        arguments=("data", "synth", "--speakers", "3000", "--clips-per-speaker", "30"),
        out=tmp_path / "long",
        product=TABLE,
    )
    never = synth(tmp_path, "never", 3)
    with pytest.raises(UserError, match="cell broken ended with status 2"):
        run_cells([long, failing(tmp_path), never], "three corpora", jobs=2)
    assert not long.finished
    assert not subprocess.run(["pgrep", "-f", str(long.out)], capture_output=True, check=False).stdout


def test_a_finished_cell_whose_parent_was_killed_is_still_known_by_its_command(tmp_path, monkeypatch):
    import experiments.study.cells as cells

    cell = synth(tmp_path, "killed", 3)
    note, notes = cells._note, []

    def once(cell, seconds):
        notes.append(seconds)
        if len(notes) == 1:
            note(cell, seconds)

    monkeypatch.setattr(cells, "_note", once)
    run_cells([cell], "as if killed before its end was noted")
    assert len(notes) == 2
    with pytest.raises(UserError, match="was made by another command"):
        run_cells([synth(tmp_path, "killed", 4)], "other options")


def test_a_failure_that_made_nothing_leaves_its_folder_to_other_commands(tmp_path):
    with pytest.raises(UserError, match="ended with status 2"):
        run_cells([failing(tmp_path)], "broken")
    assert not (tmp_path / "broken").exists()
    mended = Cell(
        name="broken", arguments=(*SYNTH, "--speakers", "3"), out=tmp_path / "broken", product=TABLE
    )
    assert run_cells([mended], "mended")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_jobs_share_the_cores_between_them(jobs, tmp_path):
    mine = os.sched_getaffinity(0)
    shares = cells._shares(jobs)
    assert len(shares) == jobs
    if jobs == 1:
        assert shares == [set()]
        return
    assert set.union(*shares) <= mine
    assert all(shares)
    if jobs <= len(mine):
        assert sum(map(len, shares)) == len(mine)
    ask = [sys.executable, "-c", "import os, time; time.sleep(0.3); print(os.sched_getaffinity(0))"]
    processes = cells._Processes(shares)
    for share in (shares[0], shares[1]):
        with (tmp_path / "log").open("wb") as log:
            assert processes.run(ask, log) == 0
        assert eval((tmp_path / "log").read_text()) == share


def test_a_failure_that_is_excused_leaves_its_cell_unfinished_and_the_others_go_on(tmp_path, capsys):
    broken, other = failing(tmp_path), synth(tmp_path, "other", 3)
    assert list(run_cells([broken, other], "two corpora", excused="--speakers")) == ["other"]
    assert not broken.finished
    assert other.finished
    assert "broken: w2v-jax: error" in capsys.readouterr().out

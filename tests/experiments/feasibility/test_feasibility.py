"""The feasibility command and the projection, from the command line to the files."""

import dataclasses
import json
import math

import pytest

from experiments import paper
from experiments.cli import main as cli
from experiments.costs.devices.records import DeviceVerdict
from experiments.feasibility import pricing, verdicts
from experiments.process.files import read_json
from experiments.reproduce import section41
from fed.compression import codec
from profiling import feasibility as rules
from tests.experiments.cli.test_commands import fails
from tests.experiments.costs.test_timings import RECORD

SMALL_RUN = (
    "--device", "xavier-nx", "a15-paper", "orin-nx", "--model", "base", "--method", "plain",
    "--precision", "fp32",
)  # fmt: skip


def run(tmp_path, *argv):
    assert cli.main(["feasibility", "--out", str(tmp_path / "f"), *argv]) == 0
    return read_json(tmp_path / "f" / "feasibility.json")


def row_of(result, device, precision="fp32", batch=4, seconds=5.5):
    return next(
        row
        for row in result["rows"]
        if (row["device"], row["precision"], row["batch"], row["seconds"])
        == (device, precision, batch, seconds)
    )


@pytest.mark.slow
def test_the_table_holds_the_papers_hours_and_what_is_unknown(tmp_path):
    result = run(tmp_path, *SMALL_RUN)
    nx = row_of(result, "xavier-nx")
    assert (nx["verdict"], nx["time_by"], nx["step_seconds"]) == ("fits", "printed", 1.78)
    assert nx["client_epoch_hours"] == pytest.approx(2.41, abs=0.005)
    assert nx["run_days"] == pytest.approx(nx["client_epoch_hours"] * 920 / 24)
    assert nx["joules_per_step"] == pytest.approx(20 * 1.78)
    assert row_of(result, "xavier-nx", batch=8, seconds=12.0)["verdict"] == "too large"
    longer = row_of(result, "xavier-nx", seconds=12.0)
    assert longer["time_by"] == "modelled"
    assert longer["step_seconds"] > nx["step_seconds"]
    phone = row_of(result, "a15-paper")
    assert phone["step_seconds"] is phone["client_run_kwh"] is None
    assert phone["verdict"] == "borderline"  # 3.99 GB of a usable 4.29 GB
    base = result["bytes"]["base"]
    assert (base["break_even_raw"], base["break_even_compressed"]) == (5, 1)
    assert base["model_bytes"] == 4 * 95_044_608
    clips = {(row["device"], row["model"]): row for row in result["longest"]}
    assert 5.5 < clips["xavier-nx", "base"]["seconds"] < 60
    fleet = result["fleet"]
    assert fleet["wall_clock_hours"] == pytest.approx(fleet["slowest_hours"] + fleet["link_hours"])
    assert fleet["slowest_hours"] == max(member["hours"] for member in fleet["members"])
    text = (tmp_path / "f" / "feasibility.md").read_text()
    assert text.startswith("# Are we there yet?")
    assert "no, 5.43 x short" in text  # NX 1.14 s, A40 0.21 s
    for name in ("verdicts.png", "time.png", "memory.png"):
        assert (tmp_path / "f" / name).stat().st_size > 10_000


@pytest.mark.slow  # tracing steps of another precision takes half a minute
def test_mixed_precision_is_faster_where_a_device_has_it(tmp_path):
    result = run(tmp_path, *SMALL_RUN, "mixed")
    new = row_of(result, "orin-nx", precision="mixed")
    assert 0 < new["step_seconds"] < row_of(result, "orin-nx")["step_seconds"]


def test_measurements_go_before_models(tmp_path):
    files = []
    for number, changes in enumerate(
        (
            {"median_seconds": 2.0, "device": "orin-nx"},
            {"status": "out_of_memory", "device": "xavier-nx"},
            {"board": {"model": "Some Board", "cpu": None}},
        )
    ):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(RECORD | changes))
    result = run(tmp_path, *SMALL_RUN, "--timings", *map(str, files))
    orin = row_of(result, "orin-nx")
    assert (orin["step_seconds"], orin["time_by"], orin["verdict"]) == (2.0, "measured", "fits")
    assert result["devices"]["orin-nx"]["times_by"] == "timings.json"
    nx = row_of(result, "xavier-nx")
    assert nx["verdict"] == "too large"
    assert nx["time_by"] == "modelled"
    # Other settings of the device follow its measurement.
    plain = run(tmp_path, *SMALL_RUN)
    factor = 2.0 / row_of(plain, "orin-nx")["step_seconds"]
    for batch in (1, 8):
        before, after = (row_of(r, "orin-nx", batch=batch)["step_seconds"] for r in (plain, result))
        assert after == pytest.approx(factor * before, rel=0.01)


def test_more_clients_share_the_same_audio(tmp_path):
    result = run(tmp_path, *SMALL_RUN, "--clients", "100", "--rounds", "7", "--link", "20/5")
    assert row_of(result, "xavier-nx")["client_epoch_hours"] == pytest.approx(0.241, abs=0.0005)
    base = result["bytes"]["base"]
    assert (base["break_even_raw"], base["break_even_compressed"]) == (1, 1)
    assert base["run_bytes"] == 7 * 2 * base["model_bytes"]
    assert base["round_link_seconds"] == pytest.approx(8 * base["model_bytes"] * (1 / 20e6 + 1 / 5e6))


ENOUGH = DeviceVerdict(
    device="x",
    title="X",
    year=2024,
    compute=1.0,
    memory=0.5,
    memory_remat=1.2,
    memory_exact=None,
    bytes=3.0,
    energy=2.0,
    errors={},
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "yes"),
        ({"memory_remat": 0.9}, "no"),
        ({"energy": None}, "unknown"),
        ({"energy": None, "compute": 0.1}, "no"),
        ({"memory": None, "memory_remat": None}, "unknown"),
        ({"errors": {"memory_remat": 0.3}}, "borderline"),
        ({"errors": {"memory": 1.5}}, "yes"),  # the other method is enough beyond doubt
        ({"errors": {"memory_remat": 0.1}}, "yes"),
        ({"memory_remat": 0.95, "errors": {"memory_remat": 0.1}}, "borderline"),
        ({"compute": 0.7, "errors": {"compute": 0.6}}, "borderline"),
    ],
)
def test_a_verdict_is_yes_only_where_all_is_known_and_enough(changes, expected):
    assert verdicts.overall(dataclasses.replace(ENOUGH, **changes)) == expected


def test_a_ratio_is_said_with_its_answer():
    device = dataclasses.replace(
        ENOUGH, compute=0.5, memory=0.97, errors={"memory": 0.1, "energy": 1.5}, bytes=None
    )
    words = {name: verdicts.in_words(device, name) for name in ("compute", "memory", "bytes", "energy")}
    assert words == {
        "compute": "no, 2 x short",
        "memory": "borderline, 0.97 x",
        "bytes": "unknown",
        "energy": "borderline, 2 x",
    }
    assert [verdicts.meeting([device], name) for name in ("memory", "memory_remat")] == [0, 1]


def test_all_criteria_that_nobody_meets_are_named():
    a40 = dataclasses.replace(ENOUGH, device="a40", compute=1.0, bytes=0.1)
    slow = dataclasses.replace(ENOUGH, compute=0.2, bytes=0.1, memory=1.2, memory_exact=2.0)
    assert verdicts.unmet([a40, slow]) == "The A40 aside, no device meets compute or bytes."
    fast = dataclasses.replace(slow, compute=1.5)
    assert verdicts.unmet([a40, slow, fast]) == "The A40 aside, no device meets bytes."
    assert verdicts.unmet([a40, dataclasses.replace(fast, bytes=1.0)]) == ""


def test_the_projection_reaches_the_a40_when_the_paper_says(tmp_path, capsys):
    assert cli.main(["reproduce", "section41", "--out", str(tmp_path)]) == 0
    result = read_json(tmp_path / "section41.json")
    low, high = result["projected"]["xavier-nx"]["years"]
    assert (round(low, 1), round(high, 1)) == (3.7, 4.1)
    assert result["assumptions"]["five_years_give"] == pytest.approx(10.1, abs=0.05)
    years = [row["years"] for row in result["sensitivity"]]
    assert years == sorted(years)
    boards = {row["device"]: row for row in result["boards"]}
    assert {"orin-nx", "orin-agx", "thor", "rpi-5"} <= set(boards)
    assert boards["thor"]["gap"] < boards["orin-nx"]["gap"] < boards["rpi-5"]["gap"]
    # The year follows from the memory that stands beside it.
    for row in boards.values():
        begins = 2022 if row["device"].removesuffix("-paper") in paper.TABLE_2 else row["year"]
        years = 1.5 * math.log2(48 * 2**30 / row["memory_bytes"])
        assert row["memory_year"] == pytest.approx(begins + max(years, 0))
    assert boards["xavier-agx"]["memory_bytes"] == 32 * 2**30
    assert boards["xavier-agx-paper"]["gap"] == boards["xavier-agx"]["gap"]
    assert boards["tensor"]["memory_bytes"] < boards["tensor-paper"]["memory_bytes"]
    for row in result["projected"].values():
        assert row["memory_years"] == pytest.approx(1.5 * math.log2(48 * 2**30 / row["memory_bytes"]))
    assert (tmp_path / "section41.png").stat().st_size > 10_000
    assert "2027" in capsys.readouterr().out
    slower = result["projected"] | {"xavier-nx": result["projected"]["xavier-nx"] | {"years": [7.3, 8.2]}}
    assert "2026 to 2027; the paper says 2027" in section41.meaning(result)
    assert "2029 to 2031; the paper says 2027" in section41.meaning(result | {"projected": slower})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["feasibility", "--device", "xavier"], "did you mean xavier"),
        (["feasibility", "--fleet", "xavier-nx"], "NAME=COUNT"),
        (["feasibility", "--fleet", "xaviernx=3"], "did you mean xavier-nx"),
        (["feasibility", "--link", "dsl"], "unknown --link 'dsl'"),
        (["feasibility", "--link", "0/5"], "unknown --link"),
        (["feasibility", "--hours", "0"], "--hours must be positive"),
        (["feasibility", "--hours", "inf"], "--hours must be positive and finite"),
        (["feasibility", "--clients", "0"], "--clients must be positive"),
        (["feasibility", "--seconds", "0.01"], "--seconds must be between"),
        (["feasibility", "--batch", "0"], "--batch must be at least 1"),
        (["feasibility", "--headroom", "1.5"], "--headroom is a share"),
        (["feasibility", "--timings", "absent.json"], "cannot read absent.json"),
        (["reproduce", "table2", "--timings", "absent.json"], "cannot read absent.json"),
        (["reproduce", "section41", "--doubling-months", "0"], "--doubling-months must be"),
        (["reproduce", "section41", "--device", "thor"], "unknown --device 'thor'"),
        (["export", "--batch", "0"], "--batch must be at least 1"),
        (["export", "--seconds", "0.001"], "--seconds must be between"),
        (["export", "--precision", "fp8"], "--precision"),
        (["plans", "grid", "--target", "xavier"], "did you mean xavier-agx"),
        (["profile", "--device", "a15"], "its memory bandwidth is not published"),
    ],
)
def test_mistakes_are_one_line(capfd, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capfd, *argv, "--out", "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_best_rq_has_seconds_and_bytes_but_no_plan_of_its_memory(tmp_path):
    argv = ("--device", "xavier-nx", "--method", "plain", "--seconds", "5.5", "--batch", "4")
    result = run(tmp_path, *argv, "--model", "best-rq-base", "base")
    rows = {row["model"]: row for row in result["rows"] if row["precision"] == "fp32"}
    assert rows["base"]["verdict"] == "fits"
    assert (rows["best-rq-base"]["verdict"], rows["best-rq-base"]["plan_bytes"]) == ("unknown", None)
    assert 0 < rows["best-rq-base"]["step_seconds"] < rows["base"]["step_seconds"]
    assert result["bytes"]["best-rq-base"]["model_bytes"] == 4 * 93_963_072
    text = (tmp_path / "f" / "feasibility.md").read_text()
    assert "best-rq-base" in text
    assert "no compiler's memory plans are kept for best-rq-base" in text


def test_fewer_bytes_a_round_break_even_later():
    run = {"client_audio_seconds": 100_000.0, "rounds": 10}
    link = rules.LINKS["lte"]
    dense = pricing.federated_bytes("tiny", run, link)
    coded = pricing.federated_bytes("tiny", run, link, up=codec("q2"), down=codec("q8"))
    assert dense["round_bytes"] == 2 * dense["model_bytes"]
    assert dense["round_link_seconds"] == link.seconds(dense["model_bytes"], dense["model_bytes"])
    share = coded["round_bytes"] / dense["round_bytes"]
    assert share == pytest.approx((2.5 + 8.5) / 64, rel=0.01)  # bits of a value, with its share of a scale
    assert coded["round_link_seconds"] < 0.3 * dense["round_link_seconds"]
    assert coded["break_even_raw"] == pytest.approx(dense["break_even_raw"] / share, rel=0.02)

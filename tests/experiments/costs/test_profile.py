import pytest

from experiments import paper
from experiments.cli import main as cli
from experiments.costs.profile.report import by_module, layer_flops
from experiments.costs.step.measurement import measure
from experiments.costs.step.training_step import StepSettings
from experiments.process.files import read_json
from experiments.reproduce.fig2 import closest
from experiments.reproduce.fig4 import pairs
from w2v_jax.errors import UserError

TINY = ["--model", "tiny", "--seconds", "1", "--batch", "2"]


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_profile_adds_up_and_draws(tmp_path, capsys, measured):
    options = ["--measure"] if measured else []
    assert cli.main(["profile", *TINY, *options, "--out", str(tmp_path)]) == 0
    result = read_json(tmp_path / "profile.json")
    layers = result["layers"]
    whole = sum(layer_flops(row, direction) for row in layers for direction in ("forward", "backward"))
    assert whole == result["step"]["flops"]
    assert by_module(layers)[-1]["params"] * 4 == result["standing_bytes"]["parameters"]
    assert not result["unpriced"]
    named = {row["name"]: row["bytes"] for row in result["accountings"]}
    assert {"autograd", "residuals", "xla"} <= set(named)
    assert ("measured" in named) == measured
    assert named["xla"] == result["compiled"]["plan"]["total"]
    timeline = result["compiled"]["timeline"]
    assert max(timeline["live_bytes"]) + timeline["standing_bytes"] == timeline["peak_bytes"]
    assert {"forward", "backward", "optimizer"} == set(timeline["phases"])
    assert 0 < result["roofline"]["fused_seconds"] < result["roofline"]["unfused_seconds"]
    if measured:
        assert all(seconds > 0 for seconds in result["measured"]["step_seconds"])
    text = (tmp_path / "profile.md").read_text()
    for word in ("cnn encoder", "autograd", "The peak", "Jetson Xavier NX", "A federated round"):
        assert word in text
    assert ("Measured:" in text) == measured
    for picture in ("layers", "timeline", "roofline"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 10_000
    assert "written:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--batch", "0"], "--batch must be at least 1"),
        (["--seconds", "0"], "--seconds must be between"),
        (["--seconds", "nan"], "--seconds must be between"),
        (["--model", "bass"], "bass"),
        (["--device", "orin"], "did you mean orin-nx?"),
        (["--target", "a40"], "unknown --target 'a40'"),
        (["--clients", "0"], "--clients must be at least 1"),
        (["--precision", "fp64"], "fp64"),
    ],
)
def test_bad_input_is_one_line(argv, words, tmp_path, capsys):
    assert cli.main(["profile", *argv, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["reproduce", "fig3", "--seconds", "1", "2"],
        ["reproduce", "fig3", "--batch", "0"],
        ["reproduce", "fig4", "--seconds", "1", "2", "3", "1e9"],
        ["plans", "--target", "a40"],
        ["plans", "--model", "bass"],
        ["reproduce", "table1", "--seconds", "inf"],
    ],
)
def test_figures_refuse_what_they_cannot_draw(argv, tmp_path, capsys):
    assert cli.main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_step_that_cannot_run_is_told_in_words():
    with pytest.raises(UserError, match="did not finish"):
        measure(StepSettings(model="no such model", seconds=1.0, batch=1))


def test_the_closest_reading_is_the_one_with_the_smallest_worse_error():
    settings = [
        {"printed_bytes": 100, "accountings": {"a": 100, "b": 110, "c": 80}},
        {"printed_bytes": 200, "accountings": {"a": 300, "b": 220, "c": 160}},
    ]
    found = closest(settings)
    assert found["name"] == "b"
    assert found["errors"]["a"] == [0.0, 0.5]


def test_precisions_are_paired_by_length():
    rows = [
        {"model": "base", "seconds": seconds, "precision": precision}
        for seconds in (2.0, 1.0)
        for precision in ("mixed", "fp32")
    ]
    assert [(a["seconds"], a["precision"], b["precision"]) for a, b in pairs(rows, "base")] == [
        (1.0, "fp32", "mixed"),
        (2.0, "fp32", "mixed"),
    ]


def test_printed_memory_belongs_to_its_settings():
    assert paper.training_bytes("base", "fp32", 4, 5.5) == 2.54e9
    assert paper.training_bytes("base", "fp32", 4, 5.0) is None
    assert paper.training_bytes("large", "fp32", 4, 5.5) is None


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "seconds"), [(1, 5.5), (4, 5.5), (2, 12.0)])
def test_xlas_total_is_what_a_process_takes(batch, seconds):
    from experiments.costs.step import training_step
    from profiling.xla import memory_plan

    settings = StepSettings(model="base", batch=batch, seconds=seconds)
    plan = memory_plan(training_step.build(settings).compile())
    found = measure(settings, repeats=2)
    print(
        f"\n{settings.describe()}: plan {plan.total / 1e9:.2f} GB, measured {found['peak_bytes'] / 1e9:.2f}"
    )
    assert found["peak_bytes"] == pytest.approx(plan.total, rel=0.1)

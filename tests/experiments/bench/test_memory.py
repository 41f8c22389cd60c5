"""Memory measured from outside, the budget's choice, and the frontier's report."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import pytest

from experiments import paper
from experiments.bench.memory import command as bench_memory
from experiments.bench.memory import report as memory_report
from experiments.bench.memory import rows as memory_rows
from experiments.bench.memory import runs as memory_runs
from experiments.costs import memory_budget
from experiments.costs.step import training_step
from experiments.costs.step.training_step import StepSettings
from experiments.options.errors import UsageError
from experiments.reproduce.frontier import figures as frontier_figures
from experiments.reproduce.frontier import report as frontier_report
from experiments.reproduce.frontier import sections as frontier
from profiling import flops
from profiling.xla import memory_plan
from w2v_jax import memory_methods
from w2v_jax.config import PRESETS
from w2v_jax.errors import UserError
from w2v_jax.objective import accumulation

TINY_STEP = {
    "model": "tiny",
    "batch": 2,
    "seconds": 1.0,
    "precision": "fp32",
    "optimizer": "sgd",
    "method": "exact",
}


PROVENANCE = {
    "command": "c",
    "commit": "x",
    "cores": 2,
    "device": "d",
    "xla_flags": "",
    "versions": {"jax": "1"},
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def measured_by_a_small_parent(environment):
    """A child's ru_maxrss is never less than what its parent held, and the runner of tests holds a lot."""
    program = (
        "import dataclasses, json, os, sys; from experiments.bench.memory.runs import measure; "
        "print(json.dumps(dataclasses.asdict(measure(json.loads(sys.argv[1]), 3, os.environ))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(TINY_STEP)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return memory_runs.Measured(**json.loads(done.stdout))


@pytest.mark.slow
def test_a_process_is_measured_from_outside(environment):
    first, second = measured_by_a_small_parent(environment), measured_by_a_small_parent(environment)
    for run in (first, second):
        # More than its arrays, less than a machine; and what it held idle was there before they were.
        assert 50e6 < run.idle_bytes < run.peak_bytes < 1e9
        assert run.above_idle_bytes > run.told["plan_bytes"] > run.told["parameter_bytes"]
        assert len(run.told["step_seconds"]) == 3
    assert first.told["losses"] == second.told["losses"]
    assert len(set(first.told["losses"])) == 3
    assert second.told["compile_seconds"] < first.told["compile_seconds"]


def test_a_process_that_fails_is_no_measurement(environment, capfd):
    with pytest.raises(UserError, match="ended with status 1"):
        memory_runs.measure(TINY_STEP | {"method": "nonsense"}, 3, environment)
    assert "unknown method" in capfd.readouterr().err


@pytest.mark.slow
def test_a_parent_that_held_more_than_its_child_measures_nothing(environment, monkeypatch):
    monkeypatch.setattr(memory_runs, "peak_resident_bytes", lambda: 10**12)
    with pytest.raises(UserError, match=r"has held 1000\.00 GB itself"):
        memory_runs.measure(TINY_STEP, 1, environment)


def test_a_process_that_the_system_ends_was_out_of_memory(environment, tmp_path, monkeypatch):
    program = tmp_path / "killed"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(memory_runs.OutOfMemory, match="too little memory"):
        memory_runs.measure(TINY_STEP, 3, environment)


def test_processes_that_spare_memory_have_small_pages(monkeypatch):
    given = {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1", "HOME": "/"}
    found = memory_runs.with_pages(given, huge=False)
    assert found == {"GLIBC_TUNABLES": "glibc.malloc.check=1", "HOME": "/"}
    monkeypatch.setattr(memory_runs.huge_pages, "wanted", lambda environment: True)
    assert memory_runs.with_pages(found, huge=True) == given


@pytest.mark.slow
def test_bench_memory_writes_its_rows(tmp_path):
    out = tmp_path / "memory"
    done = subprocess.run(
        [
            sys.executable, "-m", "experiments", "bench", "memory",
            "--model", "tiny", "--batch", "3", "--seconds", "1",
            "--method", "plain", "exact", "remat,layerwise", "exact,frozen-encoder", "--memory-budget", "2GB",
            "--gradient-seconds", "1.5", "--out", str(out),
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads((out / "memory.json").read_text())["rows"]}
    assert list(rows) == ["plain", "exact", "remat,layerwise", "exact,frozen-encoder"]
    for row in rows.values():
        assert {
            "model", "batch", "seconds", "method", "peak_bytes", "idle_bytes", "step_seconds",
            "gradient_error",
        } <= set(row)  # fmt: skip
        assert row["peak_bytes"] - row["idle_bytes"] == row["above_idle_bytes"] > 0
    assert rows["plain"]["gradient_error"] == 0.0
    assert 0 < rows["exact"]["gradient_error"] < 1e-5
    assert rows["remat,layerwise"]["gradient_error"] < 1e-5
    assert rows["exact,frozen-encoder"]["gradient_error"] > 1e-3
    assert "budget 2 GB: method plain" in done.stdout
    assert (out / "memory.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "bas"], "did you mean base"),
        (["--method", "exct"], "did you mean exact"),
        (["--method", "layerwise", "--optimizer", "adamw"], "needs --optimizer sgd"),
        (["--batch", "0"], "--batch must be positive"),
        (["--seconds", "inf"], "--seconds must be positive, and below"),
        (["--method", "truncated-0.02"], "too short for a mask"),
        (["--seconds", "0.1"], "too short for a mask"),
        (["--memory-budget", "lots"], "such as 4GB"),
        (["--gradient-batch", "-1"], "must not be negative"),
    ],
)
def test_bad_options_of_bench_memory(options, words, tmp_path):
    with pytest.raises((UsageError, UserError), match=words):
        bench_memory.main([*options, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4e9), ("800 mb", 8e8), ("1.5GiB", 1.5 * 2**30), ("1024B", 1024)]
)
def test_sizes(text, size):
    assert memory_budget.parse(text) == size


@pytest.mark.parametrize("text", ["4", "GB", "-1GB", "0GB", "4TB!", ""])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="such as 4GB"):
        memory_budget.parse(text)


@pytest.mark.parametrize("model", ["tiny", "best-rq-tiny"])
def test_the_ladder_is_exact_and_ends_with_all_methods(model):
    for batch in (1, 2, 8, 9):
        names = list(memory_budget.ladder(batch, PRESETS[model]))
        assert names[0] == "plain"
        assert names[-1] == "exact"
        assert all(memory_methods.is_exact(name) for name in names)
        assert len(set(names)) == len(names)
        for name in names:
            memory_methods.configured(PRESETS[model], name)  # which refuses parts that the model lacks


def test_the_fewest_operations_that_fit_are_chosen(monkeypatch):
    """By what each combination would take: here, less the further down the ladder it stands."""
    build, count, reports = functools.cache(training_step.build), flops.count, {}

    def counted_once(function, *arguments):
        if function not in reports:
            reports[function] = count(function, *arguments)
        return reports[function]

    # All choices price the same steps; each is traced once.
    monkeypatch.setattr(training_step, "build", build)
    monkeypatch.setattr(flops, "count", counted_once)
    settings = StepSettings(model="tiny", seconds=0.5, batch=1)
    order = list(memory_budget.ladder(1, PRESETS["tiny"]))
    sizes = {method: 100 - 10 * place for place, method in enumerate(order)}
    said = []

    def choose(budget):
        return memory_budget.choose(settings, budget, lambda step: sizes[step.method], said.append)

    assert choose(100) == ("plain", 100, 1.0)
    assert said == ["plain: 0.00 GB"]
    # The one after that in operations, whatever its place.
    leaner = choose(sizes["encoder-blocks,remat-layers,remat-feed-forward,remat-attention,remat-similarity"])
    assert 1.0 < leaner.operations < 1.6
    assert f"method {leaner.method}" in leaner.describe(4e9)
    with pytest.raises(UsageError, match="leanest exact method that was tried, exact, takes"):
        choose(1)


@pytest.mark.slow
def test_a_budget_is_kept_to_in_a_process_of_its_own():
    step = {"model": "tiny", "seconds": 1.0, "batch": 2, "precision": "fp32", "optimizer": "sgd"}
    roomy = memory_budget.choose_in_child(step, 2e9)
    assert roomy.method == "plain"
    # Two steps at a time, and three models beside them.
    more = memory_budget.choose_in_child(step, 2e9, steps=2, models=3)
    assert memory_budget.PROCESS_BYTES < roomy.needed_bytes < more.needed_bytes < 2 * roomy.needed_bytes
    with pytest.raises(UsageError, match="leanest exact method"):
        memory_budget.choose_in_child(step, memory_budget.PROCESS_BYTES)


def planned_bytes(method, batch, seconds, config):
    """The compiler's, of a step with SGD: in all, and beside parameters and gradients."""
    settings = StepSettings(model="base", batch=batch, seconds=seconds, method=method, optimizer="sgd")
    step = training_step.build(settings, memory_methods.configured(config, method))
    total = memory_plan(step.compile()).total
    return total, total - 2 * training_step.tree_bytes(step.parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "least", "most"),
    [("exact", 0.99, 1.1), pytest.param("plain", 8.0, 16.1, marks=pytest.mark.slow)],
)
def test_growth_with_the_batch(method, least, most, monkeypatch):
    """What a batch itself takes, its audio, is left aside, and features are as in a batch of any size."""
    monkeypatch.setattr(accumulation, "KEPT_FEATURES_BYTES", 0)
    small = PRESETS["tiny"].replace(conv_channels=(32,) * 7, hidden_dim=64, feed_forward_dim=256)
    few, many = (planned_bytes(method, batch, 2.0, small)[0] - batch * 32_000 * 4 for batch in (4, 64))
    assert least < many / few < most


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least", "most"), [("exact", 1.0, 1.8), ("plain", 2.0, 4.0)])
def test_growth_with_the_length(method, least, most):
    """Of what is beside parameters and gradients, from 15 s to 30 s, base."""
    short, long = (planned_bytes(method, 1, seconds, PRESETS["base"])[1] for seconds in (15.0, 30.0))
    assert least < long / short < most


def rows_of(section):
    found = []
    for place, settings in enumerate(frontier.settings_of(section)):
        peak = 2_000_000_000 + 100_000_000 * place
        found.append(
            settings
            | {
                "peak_bytes": peak,
                "idle_bytes": 200_000_000,
                "above_idle_bytes": peak - 200_000_000,
                "compiling_above_idle_bytes": peak,
                "step_seconds": 1.0 + place,
                "gradient_error": 1e-7 * place,
                "plan_bytes": peak // 2,
                "parameter_bytes": 400_000_000,
                "optimizer_bytes": 0,
            }
        )
    return found


def test_the_frontier_measures_steps_that_exist():
    fields = {field.name for field in dataclasses.fields(StepSettings)}
    for section in frontier.SECTIONS:
        wanted = frontier.settings_of(section)
        assert len({json.dumps(settings, sort_keys=True) for settings in wanted}) == len(wanted)
        for settings in wanted:
            assert set(settings) == fields
            StepSettings(**settings).config  # noqa: B018  # names that are not known raise
    single = {name for name in memory_methods.EXACT if name != "micro-N"} - {"layerwise"}
    measured = {name for method in frontier.METHODS for name in memory_methods.names_of(method)}
    assert single <= measured


def test_the_out_of_memory_cells_are_the_papers():
    cells = list(frontier.out_of_memory())
    assert len(cells) == sum(value == paper.OOM for row in paper.TABLE_2.values() for value in row.values())
    found = frontier.cells_again(rows_of("oom"))
    assert len(found) == len(cells) == 7
    assert all(cell["plain_verdict"] in ("too large", "borderline") for cell in found)
    assert all(cell["exact_verdict"] == "fits" for cell in found)


def test_the_report_says_what_was_measured(tmp_path):
    sections = {name: rows_of(name) for name in frontier.SECTIONS}
    cells = frontier.cells_again(sections["oom"])
    result = {"sections": sections, "cells": cells, "provenance": PROVENANCE}
    text = frontier_report.markdown(result)
    for row in (row for rows in sections.values() for row in rows):
        assert row["method"] in text
    growth = frontier_report.growth_of(sections["growth"])
    assert growth["batch"] == pytest.approx(2.0 / 1.8)
    assert frontier_report.growth_of(sections["growth"], "plan_bytes")["batch"] == pytest.approx(1.1)
    # 30 s are the last row but for none, 15 s the one before: activations without 0.8 GB of the model.
    assert growth["exact"] == pytest.approx((2.6 - 0.8 - 0.0) / (2.5 - 0.8 - 0.0))
    assert "of 7 cells" in text.lower()
    assert frontier_figures.draw(result, tmp_path) == ["frontier.png", "growth.png"]
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_a_row_that_was_not_run_says_so():
    row = memory_rows.row_of(TINY_STEP, None, [memory_runs.Measured(1, 2, {"plan_bytes": 9})])
    assert row["peak_bytes"] is None
    assert row["plan_bytes"] == 9
    text = memory_report.markdown({"rows": [row], "provenance": PROVENANCE})
    assert "not run" in text

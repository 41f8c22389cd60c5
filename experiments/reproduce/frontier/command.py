"""`w2v-jax reproduce frontier`: memory against time for all training methods, and Table 2's OOM cells again."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.bench.memory import rows as memory_rows
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process.files import read_json, replace_file, write_json

Section = Literal["frontier", "desired", "growth", "oom"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontierArguments:
    """Measure training by every method, base and large (an hour on two cores); it can be interrupted.

    example: w2v-jax reproduce frontier --out reports/frontier
    """

    out: Path
    """Folder for frontier.json, frontier.md and PNGs. Sections that it holds by the same commit, cores and steps are kept."""
    sections: tuple[Section, ...] = ("desired", "oom", "growth", "frontier")
    """frontier: all methods at batch 4 x 5.5 s. desired: batch 8 x 12 s. growth: against batch and length.
    oom: the cells of Table 2 that ran out of memory."""
    steps: int = 3
    """Steps of every process."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(FrontierArguments, argv, "w2v-jax reproduce frontier")
    if options.steps < 2:
        raise UsageError(
            f"--steps must be at least 2, got {options.steps}: a process's first one is not timed"
        )
    if not Path("/proc/self/status").exists():
        raise UsageError("a process's memory is read as Linux tells it; this is another system")
    from experiments.costs.devices import plan_surface
    from experiments.process import xla_flags
    from experiments.process.provenance import commit
    from experiments.reproduce.frontier import report as frontier_report
    from experiments.reproduce.frontier import sections as frontier

    plan_surface.kept()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "frontier.json"
    held = read_json(path) if path.exists() else {}
    here = {"commit": commit(), "cores": xla_flags.usable_cores(), "steps": options.steps}
    same = all(held.get(name) == value for name, value in here.items())
    sections: dict[str, Any] = held["sections"] if same else {}
    for name in options.sections:
        if name in sections:
            continue
        errors: dict[Any, Any] = {}

        def gradient_check(settings: dict[str, Any], errors: dict[Any, Any] = errors) -> dict[str, Any]:
            key = (settings["model"], settings["method"], settings["precision"])
            if key not in errors:
                errors[key] = memory_rows.gradient_error(*key, 2, 5.5)
            return errors[key]

        sections[name] = list(
            memory_rows.rows(
                frontier.settings_of(name),
                steps=options.steps,
                repeats=frontier.SERVED,
                gradient_check=gradient_check if name in ("frontier", "desired") else None,
            )
        )
        write_json(path, {**here, "sections": sections})
    result = {
        **here,
        "sections": sections,
        "cells": frontier.cells_again(sections.get("oom", [])),
        "provenance": memory_rows.provenance_of("reproduce frontier", "base", "fp32"),
    }
    write_json(path, result)
    replace_file(options.out / "frontier.md", frontier_report.markdown(result))
    pictures = frontier_report.draw(result, options.out)
    print(frontier_report.markdown(result))
    print(f"written: {path}, frontier.md, {', '.join(pictures)}")

"""`w2v-jax reproduce frontier`: measure memory and time of all training methods; judge OOM cells again."""

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
    """Folder for frontier.json, frontier.md and PNGs. Its sections of the same commit, cores and steps are
    kept."""
    sections: tuple[Section, ...] = ("desired", "oom", "growth", "frontier")
    """Sections to measure. frontier has all methods at batch 4 x 5.5 s, and desired has them at 8 x 12 s.
    growth varies batch and length. oom has the cells of Table 2 that ran out of memory."""
    steps: int = 3
    """Number of steps of each process; the first is not timed."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(FrontierArguments, argv, "w2v-jax reproduce frontier")
    if options.steps < 2:
        raise UsageError(
            f"--steps must be at least 2, got {options.steps}: a process's first step is not timed"
        )
    if not Path("/proc/self/status").exists():
        raise UsageError("reproduce frontier reads a process's memory from /proc, which only Linux has")
    from experiments.costs.devices import plan_surface
    from experiments.process import xla_flags
    from experiments.process.provenance import commit
    from experiments.reproduce.frontier.figures import draw
    from experiments.reproduce.frontier.report import markdown
    from experiments.reproduce.frontier.sections import cells_again

    plan_surface.kept()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "frontier.json"
    held = read_json(path) if path.exists() else {}
    here = {"commit": commit(), "cores": xla_flags.usable_cores(), "steps": options.steps}
    same = all(held.get(name) == value for name, value in here.items())
    sections: dict[str, Any] = held["sections"] if same else {}
    for name in options.sections:
        if name not in sections:
            sections[name] = measure(name, options.steps)
            write_json(path, {**here, "sections": sections})
    result = {
        **here,
        "sections": sections,
        "cells": cells_again(sections.get("oom", [])),
        "provenance": memory_rows.provenance_of("reproduce frontier", "base", "fp32"),
    }
    write_json(path, result)
    text = markdown(result)
    replace_file(options.out / "frontier.md", text)
    pictures = draw(result, options.out)
    print(text)
    print(f"written: {path}, frontier.md, {', '.join(pictures)}")


def measure(section: str, steps: int) -> list[dict[str, Any]]:
    """Measure the steps of a section, and check the gradients of the sections with many methods."""
    from experiments.reproduce.frontier import sections as frontier

    errors: dict[Any, Any] = {}

    def gradient_check(settings: dict[str, Any]) -> dict[str, Any]:
        key = (settings["model"], settings["method"], settings["precision"])
        if key not in errors:
            errors[key] = memory_rows.gradient_error(*key, 2, 5.5)
        return errors[key]

    return list(
        memory_rows.rows(
            frontier.settings_of(section),
            steps=steps,
            repeats=frontier.SERVED,
            gradient_check=gradient_check if section in ("frontier", "desired") else None,
        )
    )

"""Numbers of the paper's Table 2: ratios that its text derives, and predictions of the step-time model."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments import paper
from experiments.costs.devices import plan_surface
from experiments.costs.step.training_step import StepSettings
from experiments.costs.step.work import step_work
from profiling import feasibility, step_time
from profiling.devices import DEVICES, in_paper_class
from profiling.step_time import Cell

Key = tuple[str, int, str]
CALIBRATING: Key = ("base", 1, "fp32")  # every device has this cell


def timed() -> Iterator[tuple[str, Key, float]]:
    """Yield (device, (model, batch, precision), seconds) for all cells with a time."""
    for device, cells in paper.TABLE_2.items():
        for key, value in cells.items():
            if not isinstance(value, str):
                yield device, key, value


def slowdowns(reference: str = "a40") -> dict[str, dict[Key, float]]:
    """Compute how many times slower than the reference each device is, where both have a time."""
    times = {(device, key): seconds for device, key, seconds in timed()}
    return {
        device: {
            key: seconds / times[reference, key]
            for (name, key), seconds in times.items()
            if name == device and (reference, key) in times
        }
        for device in paper.TABLE_2
        if device != reference
    }


def sequence_gains(model: str = "base", precision: str = "fp32") -> dict[str, float]:
    """Compute the share of the time per sequence that batch 4 saves against batch 1, by device."""
    found = {}
    for device, cells in paper.TABLE_2.items():
        one, four = cells.get((model, 1, precision)), cells.get((model, 4, precision))
        if isinstance(one, float) and isinstance(four, float):
            found[device] = 1.0 - four / 4.0 / one
    return found


def mixed_gains(model: str = "base") -> dict[str, dict[int, float]]:
    """Compute how many times faster mixed precision is than fp32, by device and batch."""
    found: dict[str, dict[int, float]] = {}
    for device, cells in paper.TABLE_2.items():
        for batch in (1, 4):
            full, mixed = cells.get((model, batch, "fp32")), cells.get((model, batch, paper.MIXED))
            if isinstance(full, float) and isinstance(mixed, float):
                found.setdefault(device, {})[batch] = full / mixed
    return found


def client_epoch_hours(
    clips: int = paper.TEN_CLIENT_CLIPS, batch: int = 4, model: str = "base", precision: str = "fp32"
) -> dict[str, float]:
    """Compute the hours of one pass over a client's clips, by device."""
    found = {}
    for device, cells in paper.TABLE_2.items():
        seconds = cells.get((model, batch, precision))
        if isinstance(seconds, float):
            found[device] = clips / batch * seconds / 3600.0
    return found


def implied_epochs() -> float:
    """Compute the passes over a client's clips in the paper's whole run, two weeks on an A40."""
    return paper.TOTAL_DAYS_ON_A40 * 24.0 / client_epoch_hours()["a40"]


def settings_of(key: Key, seconds: float = paper.TABLE_2_SECONDS, method: str = "plain") -> StepSettings:
    """Return the settings of a cell's training step, with AdamW."""
    model, batch, precision = key
    return StepSettings(model=model, seconds=seconds, batch=batch, precision=precision, method=method)  # type: ignore[arg-type]  # plain words


def cell(device: str, key: Key, seconds: float) -> Cell:
    """Return a measured step as the step-time model takes it."""
    known = DEVICES[device]
    return Cell(name_of(key), known, key[2], step_work(settings_of(key), known), seconds)  # type: ignore[arg-type]


def cells() -> list[Cell]:
    """Return the timed cells."""
    return [cell(*row) for row in timed()]


def name_of(key: Key) -> str:
    """Name a cell; the name is the same on all devices."""
    model, batch, precision = key
    return f"{model}, batch {batch}, {'mixed' if precision == paper.MIXED else precision}"


def memory_verdicts() -> list[dict[str, Any]]:
    """Judge every printed cell by the plan for its device and the memory of the paper's class."""
    rows = []
    for name, printed in paper.TABLE_2.items():
        device = in_paper_class(name)
        usable = feasibility.usable_bytes(device)
        for key, value in printed.items():
            model, batch, precision = key
            planned = plan_surface.plan(device, model, "plain", precision, batch, paper.TABLE_2_SECONDS)
            rows.append(
                {
                    "device": name,
                    "cell": name_of(key),
                    "printed": value,
                    "plan_bytes": planned and planned.bytes,
                    "usable_bytes": usable,
                    "verdict": plan_surface.judge(planned, usable),
                }
            )
    return rows


def log_additive(train: list[Cell], titles: list[str]) -> Any:
    """Fit the baseline: log seconds as a sum of device, model, batch and precision terms."""

    def terms(c: Cell) -> np.ndarray:
        model, batch, precision = c.name.split(", ")
        return np.array(
            [
                *(float(c.device.title == title) for title in titles),
                float(model == "large"),
                float(batch == "batch 4"),
                float(precision == "mixed"),
            ]
        )

    design = np.array([terms(c) for c in train])
    weights = np.linalg.lstsq(design, np.log([c.seconds for c in train]), rcond=None)[0]
    return lambda c: float(np.exp(terms(c) @ weights))


def held_out(all_cells: list[Cell]) -> dict[str, Any]:
    """Predict the cells that were left out of a fit, by the model and by the log-additive fit.

    Returns:
        "model": (cell, seconds) with whole devices left out except for one calibrating cell; "additive":
        the same by the log-additive fit; "additive_single": the log-additive fit with single cells left out.
    """
    titles = list(dict.fromkeys(c.device.title for c in all_cells))
    calibrating = name_of(CALIBRATING)
    additive = []
    for title in titles:
        own = [c for c in all_cells if c.device.title == title]
        known = next(c for c in own if c.name == calibrating)
        predict = log_additive([c for c in all_cells if c.device.title != title] + [known], titles)
        additive += [(c, predict(c)) for c in own if c is not known]
    return {
        "model": step_time.leave_one_device_out(all_cells, calibrating),
        "additive": additive,
        "additive_single": [
            (c, log_additive([other for other in all_cells if other is not c], titles)(c)) for c in all_cells
        ],
    }

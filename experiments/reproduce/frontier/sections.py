"""Define what `reproduce frontier` measures: all methods, the desired setting, growth, OOM cells."""

import itertools
from collections.abc import Iterator
from typing import Any

from experiments import paper
from experiments.bench.memory.rows import Settings

# The setting of Figure 2 and Table 2, and the one that the paper calls more desirable (section 3.1).
SMALL = {"batch": 4, "seconds": paper.TABLE_2_SECONDS}
DESIRED = {"batch": 8, "seconds": 12.0}
LAYERWISE = "layerwise,remat-layers,encoder-blocks,remat-attention,remat-feed-forward"
METHODS = (
    "plain",
    "gathered-negatives",
    "remat-cnn",
    "remat-layers,remat-attention,remat-feed-forward,remat-similarity",
    "remat",
    "encoder-blocks",
    LAYERWISE,
    "micro-2",
    "micro-1",
    "exact",
    "frozen-encoder",
    "exact,frozen-encoder",
    "truncated-2",
)
LARGE_METHODS = (
    "plain",
    "remat",
    LAYERWISE,
    "micro-1",
    "exact",
)
BATCHES, LENGTHS = (4, 16, 64), (7.5, 15.0, 30.0)
SECTIONS = ("frontier", "desired", "growth", "oom")
SERVED = 1  # processes of each setting that the cache of compilations serves


def settings_of(section: str) -> list[Settings]:
    """List the steps that a section measures."""
    return [{"precision": "fp32", "optimizer": "sgd"} | settings for settings in _sections()[section]]


def _sections() -> dict[str, list[Settings]]:
    base, large = {"model": "base"}, {"model": "large"}
    exact = {"method": "exact"}
    states: list[Settings] = [
        {"optimizer": name, "method": method}
        for name, method in (
            ("adafactor", "exact"),
            ("lion", "exact"),
            ("adamw", "exact,bf16-state"),
            ("adamw", "exact"),
            ("adamw", "plain"),
        )
    ]
    return {
        "frontier": [
            *({**base, **SMALL, "method": method} for method in METHODS),
            *({**base, **SMALL, **state} for state in states),
            *({**large, **SMALL, "method": method} for method in LARGE_METHODS),
            *({**large, **SMALL, **state} for state in states[:1]),
        ],
        "desired": [
            {**base, **DESIRED, "method": "plain"},
            {**base, **DESIRED, "method": "plain", "optimizer": "adamw"},
            {**base, **DESIRED, **exact},
            {**base, **DESIRED, **exact, "optimizer": "adamw"},
            {**large, **DESIRED, **exact},
        ],
        "growth": [
            *({**base, **exact, "batch": batch, "seconds": SMALL["seconds"]} for batch in BATCHES),
            *(
                {**base, "method": method, "batch": 1, "seconds": seconds}
                for method, seconds in itertools.product(("plain", "exact"), LENGTHS)
            ),
        ],
        # The paper trained with an optimizer of two moments; mixed is bf16 here.
        "oom": [
            {
                **large,
                **exact,
                "batch": batch,
                "seconds": SMALL["seconds"],
                "optimizer": "adamw",
                "precision": p,
            }
            for batch, p in itertools.product((1, 4), ("fp32", "bf16"))
        ],
    }


def out_of_memory() -> Iterator[tuple[str, tuple[str, int, str]]]:
    """Yield (device, (model, batch, precision)) of the cells that Table 2 prints as out of memory."""
    for device, cells in paper.TABLE_2.items():
        for key, value in cells.items():
            if value == paper.OOM:
                yield device, key


def find(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    """Find the first row with these values; None where there is none."""
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def activations_bytes(row: dict[str, Any], of: str = "above_idle_bytes") -> int | None:
    """Count the bytes that a row holds beside its parameters, their gradients and the optimizer's state.

    Args:
        of: `above_idle_bytes`, as measured, or the compiler's `plan_bytes`, without libraries and program.
    """
    if row[of] is None:
        return None
    return row[of] - 2 * row["parameter_bytes"] - row["optimizer_bytes"]


def cells_again(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Judge Table 2's OOM cells again: the compiler's plans by method, and what a process took here.

    Args:
        rows: the rows of the section `oom`.
    """
    return [_cell_again(rows, name, *key) for name, key in out_of_memory()]


def _cell_again(
    rows: list[dict[str, Any]], name: str, model: str, batch: int, precision: str
) -> dict[str, Any]:
    """Judge a cell with the memory of the class in which the paper puts the device."""
    from experiments.costs.devices import plan_surface
    from profiling import feasibility
    from profiling.devices import DEVICES, in_paper_class

    device = in_paper_class(name)
    usable = feasibility.usable_bytes(device)
    plans = {
        method: plan_surface.plan(device, model, method, precision, batch, paper.TABLE_2_SECONDS)
        for method in ("plain", "exact")
    }
    here = "fp32" if precision == "fp32" else "bf16"
    row = find(rows, model=model, batch=batch, method="exact", precision=here)
    whole = None if row is None else row["peak_bytes"]
    return {
        "device": name,
        "title": DEVICES[name].title,
        "model": model,
        "batch": batch,
        "precision": precision,
        "usable_bytes": usable,
        "memory_bytes": device.memory_bytes,
        "plain_plan_bytes": plans["plain"] and plans["plain"].bytes,
        "exact_plan_bytes": plans["exact"] and plans["exact"].bytes,
        "plain_verdict": plan_surface.judge(plans["plain"], usable),
        "exact_verdict": plan_surface.judge(plans["exact"], usable),
        "measured_bytes": whole,
        "measured_verdict": feasibility.verdict(whole, usable),
    }

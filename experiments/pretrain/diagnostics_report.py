"""The section of a run's report about its clients: a picture and a few sentences from diagnostics.jsonl."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import PAGE_INCHES, count_axis, legend_above, message, picture
from experiments.runs.metric_columns import finite_or_nan
from experiments.runs.tasks import HELDOUT, Task

SPOILT, OTHERS = "tab:red", "tab:grey"


def panels(task: Task) -> tuple[tuple[str, str, str], ...]:
    """List the panels: column of a client, title and unit."""
    chosen, probabilities = ("in use", "before choosing") if task.trains_codes else ("fixed", "predicted")
    return (
        ("weight", "Weight in the average", "share"),
        ("training_loss", "Training loss that loss weighting uses", "nats per masked frame"),
        ("cosine_to_mean", "Update against the weighted mean", "cosine"),
        ("cosine_to_others", "Update against the others' plain mean", "cosine"),
        (task.heldout_loss, f"Held-out {task.loss_name} of local models", "nats per masked frame"),
        ("heldout_accuracy", "Held-out accuracy of local models", task.accuracy_unit),
        ("heldout_code_perplexity", f"Held-out codes, {chosen}", "perplexity"),
        ("heldout_prob_perplexity", f"Held-out codes, {probabilities}", "perplexity"),
    )


def draw(lines: list[dict[str, Any]], path: Path, task: Task) -> None:
    """Draw weights, losses, agreement and codes by client over the diagnosed rounds into a PNG."""
    rounds = [line["round"] for line in lines]
    with picture(path, 4, 2, figsize=(PAGE_INCHES, 11)) as axes:
        for axis, (name, title, label) in zip(axes.flat, panels(task), strict=True):
            _clients(axis, lines, name)
            axis.set(title=title, ylabel=label, xlabel="round")
            axis.grid(alpha=0.25)
            if name.startswith("heldout_"):
                metric = name.removeprefix("heldout_")
                for when, style in (("before", "--"), ("after", "-")):
                    values = [finite_or_nan(line[when][metric]) for line in lines]
                    axis.plot(
                        rounds, values, style, color="C0", lw=2, label=f"averaged model, {when} the round"
                    )
            if name.startswith("cosine_"):
                axis.axhline(0, color="black", lw=0.8)
        count_axis(*axes.flat)
        legend_above(list(axes.flat), 4)
        clients = {client["client"] for line in lines for client in line["clients"]}
        message(
            axes[0, 0],
            f"A thin line is one of {len(clients)} clients, over the diagnosed rounds that it took part in. "
            "One run, one seed.",
        )


def _clients(axis: Any, lines: list[dict[str, Any]], name: str) -> None:
    """Draw a line for each client over the rounds that it took part in; red for spoilt audio."""
    names = sorted({client["client"] for line in lines for client in line["clients"]})
    labelled = set()
    for client_id in names:
        points = [
            (line["round"], finite_or_nan(client[name]), client["corrupted"])
            for line in lines
            for client in line["clients"]
            if client["client"] == client_id
        ]
        spoilt = points[0][2]
        kind = "clients with spoilt audio" if spoilt else "clients"
        axis.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            "o-",
            ms=2.5,
            lw=0.9,
            color=SPOILT if spoilt else OTHERS,
            zorder=3 if spoilt else 2,
            label=None if kind in labelled else kind,
        )
        labelled.add(kind)


def markdown(lines: list[dict[str, Any]], image: str, task: Task) -> str:
    """Describe the last diagnosed round in a section, which shows the picture `image`."""
    last = lines[-1]
    clients = last["clients"]

    def mean(name: str) -> float:
        values = [finite_or_nan(client[name]) for client in clients]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    before, after = (finite_or_nan(last[when][task.loss]) for when in ("before", "after"))
    codes, norm = (finite_or_nan(value) for value in (last["after"][task.codes], last["mean_update_norm"]))
    better = sum(finite_or_nan(client[task.heldout_loss]) < after for client in clients)
    return f"""## Behind the average

In round {last["round"]} the clients' updates had a norm of {mean("update_norm"):.3g} on average, and their
weighted mean one of {norm:.3g}; the cosine of an update to the weighted mean was
{mean("cosine_to_mean"):.3f} on average, to the plain mean of the others {mean("cosine_to_others"):.3f}.
On at most 64 held-out clips the local models' {task.loss_name} was {mean(task.heldout_loss):.3f} on
average; the averaged model's went from {before:.3f} to {after:.3f}, and {better} of {len(clients)} local
models were better than it. {task.codes_name.capitalize()} (perplexity, of {task.entries}):
{mean(HELDOUT + task.codes):.1f} in local models, {codes:.1f} in the averaged one.

![clients]({image})
"""

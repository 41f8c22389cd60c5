"""The section of a run's report about its clients: a picture and a few sentences from diagnostics.jsonl."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import PAGE_INCHES, count_axis, legend_above, message, picture
from experiments.report.tables import table
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
    clients, after = last["clients"], finite_or_nan(last["after"][task.loss])
    better = sum(finite_or_nan(client[task.heldout_loss]) < after for client in clients)

    def mean(name: str) -> str:
        values = [finite_or_nan(client[name]) for client in clients]
        return f"{float(np.nanmean(values)):.3g}" if np.isfinite(values).any() else "not finite"

    def averaged(name: str) -> list[str]:
        values = (last[when][name] for when in ("before", "after"))
        return ["not finite" if value is None else f"{value:.4g}" for value in values]

    head = (f"round {last['round']}", "clients, mean", "averaged model before", "after")
    rows = [
        ("norm of the update", mean("update_norm"), None, f"{finite_or_nan(last['mean_update_norm']):.3g}"),
        ("cosine to the weighted mean", mean("cosine_to_mean"), None, None),
        ("cosine to the others' plain mean", mean("cosine_to_others"), None, None),
    ]
    for name, column in (
        (f"held-out {task.loss_name}, nats", task.loss),
        ("held-out accuracy", "accuracy"),
        (f"held-out {task.codes_name}, perplexity of {task.entries}", task.codes),
    ):
        rows.append((name, mean(HELDOUT + column), *averaged(column)))
    return f"""## Behind the average

After round {last["round"]}, {better} of {len(clients)} local models had a lower held-out {task.loss_name}
than their weighted average, on at most 64 held-out clips.

{table(head, rows)}

![clients]({image})"""

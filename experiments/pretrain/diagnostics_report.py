"""The part of a run's report that shows its clients: a picture and a few sentences from diagnostics.jsonl."""

from pathlib import Path
from typing import Any

import numpy as np

SPOILT, OTHERS = "tab:red", "tab:grey"


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Weights, losses, agreement and codes by client over the diagnosed rounds, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker

    figure, axes = plt.subplots(2, 4, figsize=(19, 7.5), layout="constrained")
    weight, training, cosine, others, loss, accuracy, codes, probabilities = axes.flat
    for axis, name, title, label in (
        (weight, "weight", "Weight in the average", "share"),
        (training, "training_loss", "Loss at the end of local training", "nats per masked frame"),
        (cosine, "cosine_to_mean", "Update against the weighted mean", "cosine"),
        (others, "cosine_to_others", "Update against the others' plain mean", "cosine"),
        (loss, "heldout_contrastive", "Held-out loss of local models", "nats per masked frame"),
        (accuracy, "heldout_accuracy", "Held-out accuracy of local models", "share of masked frames"),
        (codes, "heldout_code_perplexity", "Held-out codes in use", "perplexity of the choices"),
        (probabilities, "heldout_prob_perplexity", "Held-out codes, before choosing", "perplexity"),
    ):
        _clients(axis, lines, name)
        axis.set(title=title, ylabel=label, xlabel="round")
        axis.grid(alpha=0.25)
    for axis, name in (
        (loss, "contrastive"),
        (accuracy, "accuracy"),
        (codes, "code_perplexity"),
        (probabilities, "prob_perplexity"),
    ):
        rounds = [line["round"] for line in lines]
        for when, style in (("before", "--"), ("after", "-")):
            values = [_number(line[when][name]) for line in lines]
            axis.plot(rounds, values, style, color="C0", lw=2, label=f"averaged model, {when} the round")
    for axis in (cosine, others):
        axis.axhline(0, color="black", lw=0.8)
    for axis in axes.flat:
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _clients(axis: Any, lines: list[dict[str, Any]], name: str) -> None:
    """A line a client over the rounds that it took part in; those with spoilt audio in red."""
    names = sorted({client["client"] for line in lines for client in line["clients"]})
    labelled = set()
    for client_id in names:
        points = [
            (line["round"], _number(client[name]), client["corrupted"])
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


def markdown(lines: list[dict[str, Any]], picture: str) -> str:
    """The section, of the last diagnosed round."""
    last = lines[-1]
    clients = last["clients"]

    def mean(name: str) -> float:
        values = [_number(client[name]) for client in clients]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    before, after = _number(last["before"]["contrastive"]), _number(last["after"]["contrastive"])
    codes = _number(last["after"]["code_perplexity"])
    better = sum(_number(client["heldout_contrastive"]) < after for client in clients)
    return f"""## Behind the average

In round {last["round"]} the clients' updates had a norm of {mean("update_norm"):.3g} on average, and their
weighted mean one of {_number(last["mean_update_norm"]):.3g}; the cosine of an update to the weighted mean was
{mean("cosine_to_mean"):.3f} on average, to the plain mean of the others {mean("cosine_to_others"):.3f}.
On at most 64 held-out clips the local models' contrastive loss was {mean("heldout_contrastive"):.3f} on
average; the averaged model's went from {before:.3f} to {after:.3f}, and {better} of {len(clients)} local
models were better than it. Codes in use: {mean("heldout_code_perplexity"):.1f} in local models, {codes:.1f}
in the averaged one.

![clients]({picture})
"""


def _number(value: float | None) -> float:
    """JSON's null is what was not finite."""
    return float("nan") if value is None else value

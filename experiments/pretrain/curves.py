"""The curves of a pre-training run: losses, accuracy, codes and the band of its clients over rounds."""

from pathlib import Path
from typing import Any

from experiments.process.files import read_json
from experiments.report.figures import count_axis, picture
from experiments.runs.folder import read_config, read_metrics
from experiments.runs.metric_columns import finite_or_nan, series

WINDOW = "loss_window"  # a setting that older runs lack; their band is over the clients' last local epoch


def draw_run(folder: Path, path: Path) -> None:
    """Draw a run's curves into a PNG."""
    settings = read_config(folder)["settings"]
    lines, untrained = read_metrics(folder / "metrics.jsonl"), read_json(folder / "untrained.json")
    draw_curves(lines, untrained, path, mean=WINDOW in settings)


def draw_curves(
    lines: list[dict[str, Any]], untrained: dict[str, float], path: Path, *, mean: bool = True
) -> None:
    """Draw loss, accuracy, perplexity and the clients' losses over rounds into a PNG.

    Args:
        lines: of metrics.jsonl.
        untrained: content of untrained.json.
        path: the PNG.
        mean: whether the band of the clients' losses is over the same steps as their mean, to draw both.
    """

    def heldout(axis: Any, name: str, *style: str, **settings: Any) -> None:
        rounds, values = series(lines, f"heldout_{name}")
        axis.plot([0, *rounds], [untrained[name], *values], *style, **settings)

    speakers = {"ms": 3, "color": "C1"}
    with picture(path, 2, 2, figsize=(11, 7.5)) as axes:
        loss, accuracy, codes, clients = axes.flat
        loss.plot(*series(lines, "contrastive"), color="C0", alpha=0.6, label="training")
        heldout(loss, "contrastive", "o-", label="held-out speakers", **speakers)
        loss.axhline(untrained["contrastive"], color="grey", ls=":", label="untrained model")
        loss.set(title="Contrastive loss (lower is better)", ylabel="nats per masked frame")

        heldout(accuracy, "accuracy", "o-", label="held-out speakers", **speakers)
        heldout(accuracy, "shuffled_accuracy", color="C3", label="same model, context shuffled")
        heldout(accuracy, "chance_accuracy", "--", color="grey", label="guessing")
        accuracy.set(title="Picks the right frame (higher is better)", ylabel="share of masked frames")
        accuracy.set_ylim(bottom=0)

        codes.plot(*series(lines, "code_perplexity"), color="C0", alpha=0.6, label="training, with noise")
        heldout(codes, "code_perplexity", "o-", label="held-out speakers", **speakers)
        codes.axhline(2, color="red", ls=":", label="collapse")
        codes.set(title="Codes in use (perplexity)", ylabel="of all codebook entries")
        codes.set_ylim(bottom=0)

        draw_band(clients, lines, mean)
        for axis in axes.flat:
            axis.set_xlabel("round")
            axis.grid(alpha=0.25)
            axis.legend(fontsize=8)
        count_axis(*axes.flat)


def draw_band(axis: Any, lines: list[dict[str, Any]], mean: bool) -> None:
    """Draw the losses of the best and the worst client, and the mean; without clients, the updates' norm."""
    if not any(line.get("client_loss_min") is not None for line in lines):
        axis.plot(*series(lines, "update_norm"), label="size of the update")
        axis.set(title="Parameter change in each stretch", ylabel="norm")
        return
    # A round that reached nobody has no band: the gap stays open.
    band = [[finite_or_nan(line.get(f"client_loss_{end}")) for line in lines] for end in ("min", "max")]
    rounds = [line["round"] for line in lines]
    axis.fill_between(rounds, *band, alpha=0.3, label="best to worst client")
    if mean:
        axis.plot(*series(lines, "loss"), color="C0", lw=1, label="mean of the clients")
    axis.set(title="Training loss across clients", ylabel="nats per masked frame")

"""The report of a pre-training run: curves as PNG, a Markdown page and a self-contained HTML page."""

from pathlib import Path
from typing import Any

from experiments.pretrain import diagnostics_report, recipes
from experiments.process.files import read_json, replace_file
from experiments.report.page import self_contained_html
from experiments.report.units import duration
from experiments.runs.folder import DIAGNOSTICS, read_config, read_metrics
from experiments.runs.metric_columns import series

FILES = """Files: `metrics.jsonl` (a line a round; `events/` for TensorBoard), `diagnostics.jsonl` (with `--diagnose-every`), `untrained.json`, `clips.json` (clients, skipped clips),
`checkpoints/`, `config.json`, `starts.jsonl` (commit and versions of every start). Running the same command
again continues an interrupted run."""


def write(folder: Path) -> None:
    """Write curves.png, diagnostics.png where clients were looked at, report.md and report.html."""
    draw_run(folder, folder / "curves.png")
    draw_clients(folder, folder / "diagnostics.png")
    page = text(folder, "curves.png", FILES, "diagnostics.png")
    replace_file(folder / "report.md", page)
    replace_file(folder / "report.html", self_contained_html(page, folder, "w2v-jax pre-training"))


def draw_run(folder: Path, path: Path) -> None:
    """A run's curves as PNG."""
    draw_curves(read_metrics(folder / "metrics.jsonl"), read_json(folder / "untrained.json"), path)


def draw_clients(folder: Path, path: Path) -> None:
    """The picture of a run's clients as PNG; none where they were not looked at."""
    if lines := read_metrics(folder / DIAGNOSTICS):
        diagnostics_report.draw(lines, path)


def text(folder: Path, curves: str, files: str, clients: str) -> str:
    """A run's report as Markdown.

    Args:
        curves: the picture that it shows.
        files: what it says of the files beside it.
        clients: the picture of the clients, shown where they were looked at.
    """
    lines = read_metrics(folder / "metrics.jsonl")
    untrained = read_json(folder / "untrained.json")
    config, clips = read_config(folder), read_json(folder / "clips.json")
    page = markdown(lines, untrained, config, clips, curves)
    if looks := read_metrics(folder / DIAGNOSTICS):
        page += f"\n{diagnostics_report.markdown(looks, clients)}"
    return page + f"\n{files}\n"


def total_seconds(lines: list[dict[str, Any]]) -> float:
    """Time of rounds and evaluations."""
    return sum(line["round_seconds"] + line.get("evaluation_seconds", 0.0) for line in lines)


def draw_curves(lines: list[dict[str, Any]], untrained: dict[str, float], path: Path) -> None:
    """Loss, accuracy, perplexity and round time over rounds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    loss, accuracy, codes, clients = axes.flat

    loss.plot(*series(lines, "contrastive"), color="C0", alpha=0.6, label="training")
    rounds, values = series(lines, "heldout_contrastive")
    loss.plot(
        [0, *rounds], [untrained["contrastive"], *values], "o-", ms=3, color="C1", label="held-out speakers"
    )
    loss.axhline(untrained["contrastive"], color="grey", ls=":", label="untrained model")
    loss.set(title="Contrastive loss (lower is better)", ylabel="nats per masked frame")

    rounds, values = series(lines, "heldout_accuracy")
    accuracy.plot(
        [0, *rounds], [untrained["accuracy"], *values], "o-", ms=3, color="C1", label="held-out speakers"
    )
    rounds, values = series(lines, "heldout_shuffled_accuracy")
    accuracy.plot(
        [0, *rounds],
        [untrained["shuffled_accuracy"], *values],
        color="C3",
        label="same model, context shuffled",
    )
    rounds, values = series(lines, "heldout_chance_accuracy")
    accuracy.plot([0, *rounds], [untrained["chance_accuracy"], *values], "--", color="grey", label="guessing")
    accuracy.set(title="Picks the right frame (higher is better)", ylabel="share of masked frames")
    accuracy.set_ylim(bottom=0)

    codes.plot(*series(lines, "code_perplexity"), color="C0", alpha=0.6, label="training, with noise")
    rounds, values = series(lines, "heldout_code_perplexity")
    codes.plot(
        [0, *rounds], [untrained["code_perplexity"], *values], "o-", ms=3, color="C1", label="held-out"
    )
    codes.axhline(2, color="red", ls=":", label="collapse")
    codes.set(title="Codes in use (perplexity)", ylabel="of all codebook entries")
    codes.set_ylim(bottom=0)

    taught = [line for line in lines if line.get("client_loss_min") is not None]
    low, high = series(taught, "client_loss_min"), series(taught, "client_loss_max")
    if low[0]:
        clients.fill_between(low[0], low[1], high[1], alpha=0.3, label="best to worst client")
        clients.set(title="Local loss across clients", ylabel="nats per masked frame")
    else:
        clients.plot(*series(lines, "update_norm"), label="size of the update")
        clients.set(title="Parameter change per stretch", ylabel="norm")
    for axis in axes.flat:
        axis.set_xlabel("round")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(
    lines: list[dict[str, Any]],
    untrained: dict[str, float],
    config: dict[str, Any],
    clips: dict[str, Any],
    curves: str,
) -> str:
    """The page's text."""
    settings, provenance = config["settings"], config["provenance"]
    last = lines[-1]
    final = {name.removeprefix("heldout_"): last[name] for name in last if name.startswith("heldout_")}
    ratio, control = final["accuracy"] / max(final["chance_accuracy"], 1e-9), final["shuffled_accuracy"]
    audio = sum(line["audio_seconds"] for line in lines)
    seconds = total_seconds(lines)
    sent = sum(line["bytes_up"] + line["bytes_down"] for line in lines)
    federated = settings["preset"] != "centralised"
    who = (
        f"{settings['clients_per_round']} of {len(clips['clients'])} simulated clients took part in each of "
        f"{len(lines)} rounds and trained on their own speakers; their models were combined by "
        f"`{settings['aggregation']}`."
        if federated
        else f"One model was trained on all speakers for {len(lines)} stretches, each as long as a round."
    )
    skipped = ", ".join(f"{count} {reason}" for reason, count in clips["skipped_by_reason"].items()) or "none"
    rows = [
        ("contrastive loss (nats)", untrained["contrastive"], final["contrastive"], "lower"),
        ("accuracy", untrained["accuracy"], final["accuracy"], "higher"),
        ("accuracy by guessing", untrained["chance_accuracy"], final["chance_accuracy"], "-"),
        ("accuracy, context shuffled", untrained["shuffled_accuracy"], control, "-"),
        ("codes in use (perplexity)", untrained["code_perplexity"], final["code_perplexity"], "not 2"),
    ]
    table = "\n".join(
        f"| {name} | {before:.4g} | {after:.4g} | {better} |" for name, before, after, better in rows
    )
    source = (
        f"`{settings['data']}`"
        if settings["data"]
        else "the built-in synthetic corpus (generated, not speech)"
    )
    return f"""# Pre-training report

The model hears speech with stretches of it hidden, and learns to pick the right content of each
hidden 20 ms frame among up to 100 distractors from the same clip. {who}

| on {len(clips["heldout_speakers"])} held-out speakers | untrained | now | better |
|---|---|---|---|
{table}

It picks the right frame {ratio:.1f} times as often as guessing would, and {final["accuracy"] / max(control, 1e-9):.1f}
times as often as the same model with its context shuffled in time, the control for what a clip's
frames all share. The standard error of the accuracy over clips is {final["accuracy_standard_error"]:.2g}.

![curves]({curves})

How to read the curves: the accuracy counts against the dashed line (guessing) and the red one (the
control), not against zero. While few codes are in use, distractors often share the right code and are
left out, so guessing scores high too; a perplexity near 2 would mean collapse. Untrained codes are
many but arbitrary: falling at first and then rising is the usual course.

## What was run

| | |
|---|---|
| data | {source}: {clips["clips"]} clips, {clips["seconds"] / 3600:.2f} h, {clips["speakers"]} speakers; skipped: {skipped} |
| model | {settings["model"]}, {settings["precision"]}, method {settings.get("method", "plain")} |
| clients | {_clients(clips)} |
{_corruption(clips, lines)}| local training | {last["updates"] // len(lines)} updates a round of {settings["batch_size"]} x {settings["crop_seconds"]} s, peak rate {settings["learning_rate"]} |
| audio trained on | {audio / 3600:.2f} h (with repeats) |
| time of rounds and evaluations | {duration(seconds)} on {provenance["device"]}, {provenance["cores"]} cores |
| model bytes sent | {sent / 1e6:.1f} MB up and down |
| clients left out | {sum(line["skipped_clients"] for line in lines)} updates: not finite, or nothing learnt from |
{_fruitless(lines)}{_caveat(settings)}| padding | {100 * sum(line["padded_share"] for line in lines) / len(lines):.1f} % of the audio slots |
| seed | {settings["seed"]} |
| commit | {provenance["commit"]} |
| versions | {", ".join(f"{name} {version}" for name, version in provenance["versions"].items())} |
| XLA flags | `{provenance["xla_flags"]}` |

```
{provenance["command"]}
```
"""


def _clients(clips: dict[str, Any]) -> str:
    """How the corpus was dealt, and whether speakers of evaluation splits were heard."""
    dealt = clips.get("partition")
    words = "none: one model on everything"
    if dealt:
        rule = dealt["rule"]
        kind = rule["kind"] + (f" ({rule['column']}, alpha {rule['alpha']})" if "alpha" in rule else "")
        seconds = " / ".join(f"{value:.0f}" for value in dealt["seconds_min_median_max"])
        speakers = " / ".join(f"{value:.0f}" for value in dealt["speakers_min_median_max"])
        words = f"{dealt['clients']}, {kind}: {seconds} s and {speakers} speakers each (min / median / max)"
    heard = [f"{count} of {split}" for split, count in clips.get("speakers_also_in", {}).items() if count]
    return words + (
        f"; speakers heard in training that are also in other splits: {', '.join(heard)}" * bool(heard)
    )


def _fruitless(lines: list[dict[str, Any]]) -> str:
    """The row that counts federated rounds without any update; empty if there are none."""
    rounds = [line for line in lines if "client_weights" in line and not any(line["client_weights"])]
    return f"| rounds without any client's update | {len(rounds)} of {len(lines)} |\n" if rounds else ""


def _caveat(settings: dict[str, Any]) -> str:
    """The row that says whom privacy does not protect; empty if there is nothing to say."""
    caveat = recipes.privacy_caveat(settings)
    return f"| privacy | {caveat} |\n" if caveat else ""


def _corruption(clips: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """The row that says whose audio was spoilt and what weight they had; empty where nobody's was."""
    spoilt = clips.get("corruption")
    if not spoilt:
        return ""
    share = sum(line["corrupted_weight"] for line in lines) / len(lines)
    fair = len(spoilt["clients"]) / len(clips["clients"])
    return (
        f"| corrupted clients | {len(spoilt['clients'])} of {len(clips['clients'])} trained on spoilt audio "
        f"({spoilt['kind']}): {', '.join(spoilt['clients'])}; their weight was {share:.3f} on average, their "
        f"share of the clients is {fair:.3f} |\n"
    )

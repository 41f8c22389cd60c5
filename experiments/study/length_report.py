"""length.md and length.png: every sentence is worked out from the numbers of length.json."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import PAGE_INCHES, message, picture
from experiments.report.statistics import interval, mean_spread, minus, over_seeds, shown_sign
from experiments.report.tables import table
from experiments.study.curves import NO_DIFFERENCE, cores_of, judgement
from experiments.study.length_settings import BATCH_SECONDS, CROP_SECONDS

# Values whose lengths are compared: (title, unit, digits, scale).
JUDGED = {
    "cer": ("CER after fine-tuning", " points", 1, 100.0),
    "loss": ("test loss after fine-tuning", "", 3, 1.0),
    "heldout_loss": ("held-out contrastive loss", "", 3, 1.0),
}
PAIRS = tuple(itertools.combinations(range(len(CROP_SECONDS)), 2))
COMPARISONS = len(JUDGED) * len(PAIRS)


def by_length(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Summarise a value over seeds, length by length."""
    return [
        over_seeds([row[name] for row in result["rows"] if row["crop_seconds"] == crop])
        for crop in CROP_SECONDS
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw losses, error rates and time against the length of crops."""
    panels = (
        ("heldout_loss", "Held-out contrastive loss", "nats, on crops of 2.5 s", 1.0),
        ("cer", "CER on test after fine-tuning", "CER, %", 100.0),
        ("loss", "Test loss after fine-tuning", "nats a character", 1.0),
        ("seconds_per_audio_second", "Time", "s per second of audio", 1.0),
    )
    with picture(path, 2, 2, figsize=(PAGE_INCHES, 6.5)) as axes:
        for axis, (name, title, unit, scale) in zip(axes.flat, panels, strict=True):
            lengths = by_length(result, name)
            for crop, found in zip(CROP_SECONDS, lengths, strict=True):
                values = [scale * value for value in found["by_seed"]]
                axis.plot([crop] * len(values), values, "o", color="C0", alpha=0.6)
            means = [scale * found["mean"] for found in lengths]
            halves = [scale * (interval(found["by_seed"]) or 0.0) for found in lengths]
            axis.errorbar(CROP_SECONDS, means, halves, fmt="_-", capsize=4, color="C0", alpha=0.8)
            axis.set(title=title, xlabel="length of crops, s", ylabel=unit, xscale="log")
            axis.set_xticks(CROP_SECONDS, [f"{crop:g}" for crop in CROP_SECONDS])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        message(
            axes[0, 0],
            f"{_judgements(result)[-1]} A dot is a seed of {result['seeds']}; lines join the means, and bars "
            "are 95 % intervals of the mean (Student's t, for one comparison).",
        )


def markdown(result: dict[str, Any]) -> str:
    """Make the report that readers see."""
    made, data = result["provenance"], Path(result["data"])
    parts = [
        "# Length of the clips that pre-training hears",
        "Section 3.2 of the paper asks what shorter clips do. `tiny` is pre-trained centrally on crops of "
        f"`{data.parent.name}/{data.name}` (mean clip {result['clip_seconds_mean']:.1f} s), "
        f"{BATCH_SECONDS:g} s of crops a batch, {result['scale']['audio_seconds']:.0f} s of audio in all, "
        f"then fine-tuned. {result['seeds']} seeds, ± their standard deviation.",
        "![figure](length.png)",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        _results_table(result),
        _costs_table(result),
        "Held-out loss is always on crops of 2.5 s. Operations and memory are those of one update: "
        "operations are counted from the traced program; memory is what XLA plans for this backend beyond "
        "parameters and optimizer state.",
        f"Commit {', '.join(made['cell_commits'])}; {made['device']}, {cores_of(made)}, {result['jobs']} "
        f"side by side.\n\n```\n{made['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _cell(result: dict[str, Any], name: str, index: int, digits: int, scale: float = 1.0) -> str:
    return mean_spread(by_length(result, name)[index]["by_seed"], digits, scale)


def _results_table(result: dict[str, Any]) -> str:
    columns = {
        "updates": ("updates", 0, 1.0),
        "audio_seconds": ("audio, s", 0, 1.0),
        "padded_share": ("padding, %", 0, 100.0),
        "heldout_loss": ("held-out loss", 3, 1.0),
        "heldout_accuracy": ("accuracy", 3, 1.0),
        "cer": ("CER, %", 1, 100.0),
        "wer": ("WER, %", 1, 100.0),
        "loss": ("test loss", 3, 1.0),
    }
    rows = [
        (
            f"{crop:g}",
            cost["batch"],
            *(_cell(result, name, index, digits, scale) for name, (_, digits, scale) in columns.items()),
        )
        for index, (crop, cost) in enumerate(zip(CROP_SECONDS, result["costs"], strict=True))
    ]
    return table(("crop, s", "batch", *(title for title, *_ in columns.values())), rows)


def _costs_table(result: dict[str, Any]) -> str:
    return table(
        ("crop, s", "GFLOPs a second of crops", "temporary memory, MiB", "seconds a second of audio"),
        [
            (
                f"{crop:g}",
                f"{cost['flops_per_crop_second'] / 1e9:.3f}",
                f"{cost['temporary_bytes'] / 2**20:.1f}",
                _cell(result, "seconds_per_audio_second", index, 4),
            )
            for index, (crop, cost) in enumerate(zip(CROP_SECONDS, result["costs"], strict=True))
        ],
    )


def sentences(result: dict[str, Any]) -> list[str]:
    """Say what the numbers show."""
    return [*(_extremes(result, name) for name in JUDGED), *_judgements(result), *_costs(result)]


def _extremes(result: dict[str, Any], name: str) -> str:
    """Compare the lengths with the lowest and with the highest mean, seed by seed."""
    title, unit, digits, scale = JUDGED[name]
    lengths = by_length(result, name)
    order = np.argsort([length["mean"] for length in lengths])
    best, worst = int(order[0]), int(order[-1])
    gap = _difference(lengths[worst], lengths[best])
    shown = "shown" if shown_sign(gap, COMPARISONS) else NO_DIFFERENCE
    percent = " %" if unit else ""
    return (
        f"The lowest {title} is that of {CROP_SECONDS[best]:g} s "
        f"({scale * lengths[best]['mean']:.{digits}f}{percent}), the highest that of "
        f"{CROP_SECONDS[worst]:g} s ({scale * lengths[worst]['mean']:.{digits}f}{percent}): a difference "
        f"of {mean_spread(gap, digits, scale)}{unit} ({shown})."
    )


def _difference(one: dict[str, Any], other: dict[str, Any]) -> list[float | None]:
    return [minus(mine, theirs) for mine, theirs in zip(one["by_seed"], other["by_seed"], strict=True)]


def _judgements(result: dict[str, Any]) -> list[str]:
    """Explain the verdicts, and count the pairs of lengths whose difference is shown."""
    gaps = []
    for name in JUDGED:
        lengths = by_length(result, name)
        gaps += [_difference(lengths[one], lengths[other]) for one, other in PAIRS]
    shown = sum(shown_sign(gap, COMPARISONS) != 0 for gap in gaps)
    return [
        judgement(result["seeds"], COMPARISONS),
        f"{shown} of the {COMPARISONS} differences ({len(PAIRS)} pairs of lengths, {len(JUDGED)} values) "
        "are shown.",
    ]


def _costs(result: dict[str, Any]) -> list[str]:
    updates = [value["mean"] for value in by_length(result, "updates")]
    first, last, costs = CROP_SECONDS[0], CROP_SECONDS[-1], result["costs"]
    flops, memory = (
        costs[-1][name] / costs[0][name] for name in ("flops_per_crop_second", "temporary_bytes")
    )
    return [
        f"At equal audio {last:g} s gets {updates[-1] / updates[0]:.2f} times the updates of {first:g} s, "
        "with less speech in each, as clips end before their crops do.",
        f"At {last:g} s a second of crops costs {flops:.2f} times the operations of {first:g} s, and a "
        f"batch takes {memory:.2f} times the memory.",
    ]

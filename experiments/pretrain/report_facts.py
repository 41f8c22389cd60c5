"""The facts of a pre-training run for its report: data, clients, time, bytes and versions."""

import statistics
from typing import Any

from experiments.pretrain import recipes
from experiments.report.units import UNKNOWN, by_reason, byte_size, duration, number, percent
from experiments.runs.metric_columns import PACE, RATE_SHARE
from experiments.runs.tasks import speech_heard


def total_seconds(lines: list[dict[str, Any]]) -> float:
    """Add up the seconds of rounds and evaluations."""
    return sum(line["round_seconds"] + line.get("evaluation_seconds", 0.0) for line in lines)


def run_facts(
    lines: list[dict[str, Any]], config: dict[str, Any], clips: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Make the rows of what was run."""
    settings, provenance = config["settings"], config["provenance"]
    skipped = by_reason(clips["skipped_by_reason"], none="none")
    changed = by_reason(clips.get("changed_by_reason", {}), none="none")
    source = (
        f"`{settings['data']}`"
        if settings["data"]
        else "the built-in synthetic corpus (generated, not speech)"
    )
    data = f"{clips['clips']} clips, {clips['seconds'] / 3600:.2f} h, {clips['speakers']} speakers"
    updates = lines[-1]["updates"] // len(lines)
    crops = f"{settings['batch_size']} x {settings['crop_seconds']} s"
    sent = sum(line["bytes_up"] + line["bytes_down"] for line in lines)
    speech, padded = speech_heard(lines)
    left_out = sum(line["skipped_clients"] for line in lines)
    return [
        ("data", f"{source}: {data}; skipped: {skipped}; changed: {changed}"),
        ("model", f"{settings['model']}, {settings['precision']}, method {settings.get('method', 'plain')}"),
        ("clients", _clients(clips)),
        *_corruption(clips, lines),
        ("local training", f"{updates} updates a round of {crops}, peak rate {settings['learning_rate']}"),
        *_lengthened(config),
        ("speech heard", f"{speech:,.0f} s ({speech / 3600:.2f} h), with repeats and without padding"),
        ("padding", f"{percent(padded, 1)} of the audio computed"),
        *_pace(lines),
        (
            "time of rounds and evaluations",
            f"{duration(total_seconds(lines))} on {provenance['device']}, {provenance['cores']} cores",
        ),
        ("model bytes sent", f"{byte_size(sent)} up and down"),
        ("clients left out", f"{left_out} updates: not finite, or nothing learnt from"),
        *_fruitless(lines),
        *([("privacy", caveat)] if (caveat := recipes.privacy_caveat(settings)) else []),
        ("seed", settings["seed"]),
        ("commit", provenance["commit"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())),
        ("XLA flags", f"`{provenance['xla_flags']}`"),
    ]


def _pace(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Make the row of the median pace, without the first round, which compiled; none if it is unknown."""
    later = lines[1:] or lines
    paces = [line[PACE] for line in later if line.get(PACE) is not None]
    shares = [line[RATE_SHARE] for line in later if line.get(RATE_SHARE) is not None]
    if not paces:
        return []
    share = f"; {percent(statistics.median(shares), 1)} of the device's rate" if shares else ""
    return [("pace (median)", f"{number(statistics.median(paces))} s of speech a second{share}")]


def _fruitless(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Make the row that counts federated rounds without any update; none if there are no such rounds."""
    rounds = [line for line in lines if "client_weights" in line and not any(line["client_weights"])]
    return [("rounds without any client's update", f"{len(rounds)} of {len(lines)}")] if rounds else []


def _lengthened(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Make the row of a run that was lengthened: its plans, and when each ended."""
    plans = [f"{step['planned']} until round {step['after']}" for step in config.get("lengthened", [])]
    now = config["settings"].get("rounds")
    words = f"{', then '.join(plans)}, then {now}; the learning rate followed the plan of the time"
    return [("planned rounds", words)] if plans else []


def _clients(clips: dict[str, Any]) -> str:
    """Say how the corpus was dealt, and whether speakers of evaluation splits were heard."""
    dealt = clips.get("partition")
    words = "none: one model on everything"
    if dealt:
        rule = dealt["rule"]
        kind = rule["kind"] + (f" ({rule['column']}, alpha {rule['alpha']})" if "alpha" in rule else "")
        seconds = " / ".join(f"{value:.0f}" for value in dealt["seconds_min_median_max"])
        speakers = " / ".join(f"{value:.0f}" for value in dealt["speakers_min_median_max"])
        words = f"{dealt['clients']}, {kind}: {seconds} s and {speakers} speakers each (min / median / max)"
    heard = [
        f"{UNKNOWN if count is None else count} of {split}"
        for split, count in clips.get("speakers_also_in", {}).items()
        if count != 0
    ]
    return words + (
        f"; speakers heard in training that are also in other splits: {', '.join(heard)}" * bool(heard)
    )


def _corruption(clips: dict[str, Any], lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Make the row of the clients whose audio was spoilt, with their weight; none without such clients."""
    spoilt = clips.get("corruption")
    if not spoilt:
        return []
    share = sum(line["corrupted_weight"] for line in lines) / len(lines)
    fair = len(spoilt["clients"]) / len(clips["clients"])
    words = (
        f"{len(spoilt['clients'])} of {len(clips['clients'])} trained on spoilt audio "
        f"({spoilt['kind']}): {', '.join(spoilt['clients'])}; their weight was {share:.3f} on average, their "
        f"share of the clients is {fair:.3f}"
    )
    return [("corrupted clients", words)]

"""The feasibility table for readers: a verdict first, then memory, time, bytes and energy."""

from typing import Any

from experiments import paper

CRITERIA = {
    "compute": "compute",
    "memory": "memory",
    "memory_remat": "memory, remat",
    "memory_exact": "memory, exact",
    "bytes": "bytes",
    "energy": "energy",
}
MEMORIES = ("memory", "memory_remat", "memory_exact")
SHOWN_BATCH = 4


def markdown(result: dict[str, Any]) -> str:
    """The report."""
    run, devices = result["run"], result["devices"]
    provenance = result["provenance"]
    batch, seconds = shown_setting(result)
    lines = [
        "# Are we there yet?",
        "",
        *verdict(result),
        "",
        "![verdicts](verdicts.png)",
        "",
        f"## Memory and time: batch {batch} x {seconds:g} s, whole run of {run['rounds']} rounds, {run['clients']} clients, {run['hours']:g} h of speech",
        "",
        *_settings(result),
        "",
        "![time](time.png)",
        "",
        "## The longest clip that fits, batch 1, fp32, AdamW",
        "",
        *_longest(result),
        "",
        f"Keyword spotting takes clips of {paper.KEYWORD_SECONDS[0]:g} to {paper.KEYWORD_SECONDS[1]:g} s, and released models train on more than {paper.RELEASED_MODELS_SECONDS:g} s (the paper, section 3.2).",
        "",
        "![memory](memory.png)",
        "",
        f"## Bytes over {result['link']['title']} ({result['link']['source']})",
        "",
        *_bytes(result),
        "",
        "## A round with unlike clients",
        "",
        *_fleet(result),
        "",
        "## More speech",
        "",
        *_corpora(result),
        "",
        "## What this rests on",
        "",
        f"- Memory: compilers' plans with AdamW, between compiled settings a fit. {_fit_errors(result['plan_fit_errors'])} Devices without a compiler here stand by another's plan: A40 and Thor by Orin's, phones and Raspberry Pis by XLA's for this CPU. "
        + (
            "Usable is three quarters of the memory (XLA's own default), on phones a half."
            if result["headroom"] is None
            else f"Usable is {1 - result['headroom']:.0%} of the memory."
        ),
        f"- Seconds: the model of `w2v-jax reproduce table2`; its errors are stated there. A device that it was not calibrated on stands by its data sheet alone; for the devices of Table 2 that was up to a factor of {result['worst_factor']:.1f} off. Where the paper prints a time, that is it.",
        f"- Rounds: {run['rounds_from']}. A round is one local epoch. Energy: the device's highest power mode, chip's rating or board's supply for as long as it computes: an upper bound.",
        "- What nobody publishes is unknown here, and stays unknown.",
        "",
        "| device | memory, GB | usable | W | times by | source |",
        "|---|---|---|---|---|---|",
    ]
    for row in devices.values():
        lines.append(
            f"| {row['title']} | {gigabytes(row['memory_bytes'])} | {gigabytes(row['usable_bytes'])} | {row['watts'] or 'unknown'} | {row['times_by']} | {row['source']} |"
        )
    lines += ["", f"`{provenance['command']}`, commit {provenance['commit']}"]
    return "\n".join(lines) + "\n"


def verdict(result: dict[str, Any]) -> list[str]:
    """Yes or no for every board, and by how much."""
    run = result["run"]
    lines = [
        "| device | compute: as fast as an A40 | memory: base, batch 8 x 12 s | the same, remat | the same, exact | bytes: no more than its audio | energy: no more than an A40's | are we there? |",
        "|---|---|---|---|---|---|---|---|",
    ]
    there = []
    for row in result["verdicts"]:
        cells = [said(row[name]) for name in CRITERIA]
        answer = overall(row)
        there += [row["title"]] if answer == "yes" else []
        lines.append(f"| {row['title']} | {' | '.join(cells)} | {answer} |")
    summary = (
        f"**{', '.join(there)}: yes.**"
        if there
        else "**By every criterion together: no device is there yet.**"
    )
    return [
        summary
        + f" Each cell is what there is over what it takes: one or more is a yes. Bytes count a run of {run['rounds']} rounds against the client's raw audio, sent once.",
        "",
        *lines,
    ]


def _fit_errors(errors: dict[str, float]) -> str:
    """How far the fit was from compiled plans that it had not seen, the worst kind by name."""
    worst, *others = sorted(errors, key=lambda name: -errors[name])
    rest = f", {errors[others[0]]:.0%} at most of all others" if others else ""
    return f"Off a compiled plan that it had not seen it was {errors[worst]:.0%} at worst ({worst}){rest}."


def overall(row: dict[str, Any]) -> str:
    """yes where every criterion is met, memory by any method; unknown where one that might fail is not known."""
    memory = max((row[name] for name in MEMORIES if row[name] is not None), default=None)
    ratios = [row["compute"], memory, row["bytes"], row["energy"]]
    if any(ratio is not None and ratio < 1 for ratio in ratios):
        return "no"
    return "unknown" if None in ratios else "yes"


def meeting(judged: list[dict[str, Any]], name: str) -> int:
    """How many devices are known to meet a criterion."""
    return sum(row[name] is not None and row[name] >= 1 for row in judged)


def said(ratio: float | None) -> str:
    """A ratio in words."""
    if ratio is None:
        return "unknown"
    return f"yes, {number(ratio)} x" if ratio >= 1 else f"no, {number(1 / ratio)} x short"


def number(value: float | None) -> str:
    """Three digits, whole from a hundred on."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def gigabytes(size: float | None) -> str:
    """A size for a table."""
    return "unknown" if size is None else f"{size / 1e9:.3g}"


def shown_setting(result: dict[str, Any]) -> tuple[int, float]:
    """Batch 4 and the paper's length, or the nearest that were asked for."""
    batch = min({row["batch"] for row in result["rows"]}, key=lambda b: abs(b - SHOWN_BATCH))
    seconds = min({row["seconds"] for row in result["rows"]}, key=lambda s: abs(s - paper.TABLE_2_SECONDS))
    return batch, seconds


def shown_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of that setting."""
    return [row for row in result["rows"] if (row["batch"], row["seconds"]) == shown_setting(result)]


def _settings(result: dict[str, Any]) -> list[str]:
    lines = [
        "| device | model | precision | method | plan, GB | fits | seconds a step | by | hours a client-epoch | days, whole run | J a step | kWh a client, whole run |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in shown_rows(result):
        numbers = [
            number(row[name])
            for name in (
                "step_seconds",
                "client_epoch_hours",
                "run_days",
                "joules_per_step",
                "client_run_kwh",
            )
        ]
        if row["verdict"] == "unknown" and row["step_seconds"] is None:
            continue  # nothing is known of it
        lines.append(
            f"| {result['devices'][row['device']]['title']} | {row['model']} | {row['precision']} | {row['method']} | {gigabytes(row['plan_bytes'])} | {row['verdict']} | {numbers[0]} | {row['time_by'] or '-'} | {' | '.join(numbers[1:])} |"
        )
    return [*lines, "", "Seconds are given also where it does not fit: what it would take."]


def _longest(result: dict[str, Any]) -> list[str]:
    settings = list(dict.fromkeys((row["model"], row["method"]) for row in result["longest"]))
    lines = [
        "| device | " + " | ".join(f"{model}, {method}" for model, method in settings) + " |",
        "|---|" + "---|" * len(settings),
    ]
    for device, held in result["devices"].items():
        cells = []
        for setting in settings:
            row = next(
                r for r in result["longest"] if (r["device"], r["model"], r["method"]) == (device, *setting)
            )
            cells.append(_clip(row))
        lines.append(f"| {held['title']} | {' | '.join(cells)} |")
    return [*lines, "", "Beyond the longest compiled clip of 15 s it is the fit that speaks."]


def _clip(row: dict[str, Any]) -> str:
    from experiments.costs.devices.costs import LIMIT_SECONDS

    if not row["known"]:
        return "unknown"
    if row["seconds"] is None:
        return "none"
    return f"over {LIMIT_SECONDS:g} s" if row["seconds"] >= LIMIT_SECONDS else f"{row['seconds']:.1f} s"


def _bytes(result: dict[str, Any]) -> list[str]:
    lines = [
        "| model | a round, up and down | on this link | whole run | on this link | a client's audio, raw | compressed (48 kbit/s) | more than raw from round | than compressed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, row in result["bytes"].items():
        lines.append(
            f"| {model} | {row['round_bytes'] / 1e9:.2f} GB | {row['round_link_seconds']:.0f} s | {row['run_bytes'] / 1e9:.0f} GB | {row['run_link_hours']:.1f} h | {row['audio_raw_bytes'] / 1e9:.2f} GB | {row['audio_compressed_bytes'] / 1e9:.2f} GB | {row['break_even_raw']} | {row['break_even_compressed']} |"
        )
    return [*lines, "", "Of a client that takes part in every round; parameters in fp32, nothing compressed."]


def _fleet(result: dict[str, Any]) -> list[str]:
    fleet = result["fleet"]
    lines = ["| device | clients | setting | hours of a local epoch |", "|---|---|---|---|"]
    for member in fleet["members"]:
        setting, hours = member["setting"], member["hours"]
        words = (
            f"batch {setting['batch']}, {setting['precision']}, {setting['method']}"
            if hours is not None
            else f"cannot take part: {setting['why']}"
        )
        lines.append(
            f"| {member['title']} | {member['count']} | {words} | {'-' if hours is None else f'{hours:.2f}'} |"
        )
    if fleet["wall_clock_hours"] is None:
        said = "A client cannot take part or its times are unknown, so that the round has no length."
    else:
        said = f"{fleet['model']}: the round takes {fleet['wall_clock_hours']:.2f} h, {fleet['link_hours'] * 60:.1f} min of it on the link; all others wait for the slowest, {fleet['waiting_share']:.0%} of the clients' time."
    return [*lines, "", said]


def _corpora(result: dict[str, Any]) -> list[str]:
    if not result["corpora"]:
        return ["Nothing that was asked for fits and has a known time."]
    hours = list(dict.fromkeys(key for row in result["corpora"] for key in row["days"]))
    lines = [
        "| device | model | setting | " + " | ".join(f"days, {float(h):,.0f} h" for h in hours) + " |",
        "|---|---|---|" + "---|" * len(hours),
    ]
    for row in result["corpora"]:
        s = row["setting"]
        lines.append(
            f"| {result['devices'][row['device']]['title']} | {row['model']} | batch {s['batch']} x {s['seconds']:g} s, {s['precision']}, {s['method']} | "
            + " | ".join(number(row["days"][h]) for h in hours)
            + " |"
        )
    return [
        *lines,
        "",
        f"As many rounds over {result['run']['clients']} clients, each with its share, by the fastest setting that fits.",
    ]

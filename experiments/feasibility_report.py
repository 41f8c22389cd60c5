"""The feasibility table for readers: a verdict first, then memory, time, bytes and energy, and three pictures."""

from pathlib import Path
from typing import Any

from experiments import paper

CRITERIA = {
    "compute": "compute",
    "memory": "memory",
    "memory_remat": "memory, remat",
    "bytes": "bytes",
    "energy": "energy",
}
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
        f"- Memory: compilers' plans with AdamW, between compiled settings a fit, which is at most {result['worst_plan_fit']:.1%} off a compiled plan that it has not seen. Devices without a compiler here stand by another's plan: A40 and Thor by Orin's, phones and Raspberry Pis by XLA's for this CPU. "
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
        "| device | compute: as fast as an A40 | memory: base, batch 8 x 12 s | the same, remat | bytes: no more than its audio | energy: no more than an A40's | are we there? |",
        "|---|---|---|---|---|---|---|",
    ]
    there = []
    for row in result["verdicts"]:
        cells = [_said(row[name]) for name in CRITERIA]
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


def overall(row: dict[str, Any]) -> str:
    """yes where every criterion is met, memory by any method; unknown where one that might fail is not known."""
    memory = max((row[name] for name in ("memory", "memory_remat") if row[name] is not None), default=None)
    ratios = [row["compute"], memory, row["bytes"], row["energy"]]
    if any(ratio is not None and ratio < 1 for ratio in ratios):
        return "no"
    return "unknown" if None in ratios else "yes"


def _said(ratio: float | None) -> str:
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


def _shown(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of that setting."""
    return [row for row in result["rows"] if (row["batch"], row["seconds"]) == shown_setting(result)]


def _settings(result: dict[str, Any]) -> list[str]:
    lines = [
        "| device | model | precision | method | plan, GB | fits | seconds a step | by | hours a client-epoch | days, whole run | J a step | kWh a client, whole run |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _shown(result):
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
    from experiments.device_costs import LIMIT_SECONDS

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


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """verdicts.png, memory.png and time.png; their names."""
    import matplotlib

    matplotlib.use("Agg")
    _draw_verdicts(result, folder / "verdicts.png")
    _draw_time(result, folder / "time.png")
    _draw_memory(result, folder / "memory.png")
    return ["verdicts.png", "time.png", "memory.png"]


def _draw_verdicts(result: dict[str, Any], path: Path) -> None:
    """Each device's ratios against the line that they must reach."""
    import matplotlib.pyplot as plt

    rows = result["verdicts"]
    figure, axis = plt.subplots(figsize=(10, 1.6 + 0.4 * len(rows)), layout="constrained")
    for place, (name, label) in enumerate(CRITERIA.items()):
        known = [(row[name], index) for index, row in enumerate(rows) if row[name] is not None]
        if known:
            ratios, at = zip(*known, strict=True)
            spread = [index + (place - 2) * 0.13 for index in at]
            axis.scatter(ratios, spread, label=label, color=f"C{place}", s=36, zorder=3)
    axis.axvline(1.0, color="red", linewidth=1.5, label="there: the A40's, or what it takes")
    axis.axvspan(1.0, max(axis.get_xlim()[1], 10), color="tab:green", alpha=0.07)
    axis.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axis.invert_yaxis()
    axis.set(
        xscale="log",
        xlabel="what there is over what it takes; no dot: unknown",
        title="Are we there yet? base, device by device",
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_time(result: dict[str, Any], path: Path) -> None:
    """Days of a whole run by device, the fastest setting; hollow where it does not fit."""
    import matplotlib.pyplot as plt

    batch, seconds = shown_setting(result)
    rows = [row for row in _shown(result) if row["run_days"] is not None]
    devices = list(dict.fromkeys(row["device"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axis = plt.subplots(figsize=(10, 1.6 + 0.45 * max(len(devices), 1)), layout="constrained")
    for place, model in enumerate(models):
        for at, device in enumerate(devices):
            own = [row for row in rows if (row["device"], row["model"]) == (device, model)]
            best = min(own, key=lambda row: (row["verdict"] != "fits", row["run_days"]), default=None)
            if best is None:
                continue
            fits = best["verdict"] == "fits"
            bar = axis.barh(
                at + (place - (len(models) - 1) / 2) * 0.38,
                best["run_days"],
                0.36,
                color=f"C{place}" if fits else "none",
                edgecolor=f"C{place}",
                hatch=None if fits else "///",
                label=model if at == 0 else None,
            )
            note = f"{best['run_days']:,.0f} days" + ("" if fits else f" ({best['verdict']})")
            axis.bar_label(bar, [note], fontsize=7, padding=3)
    axis.axvline(
        paper.TOTAL_DAYS_ON_A40,
        color="red",
        linestyle=":",
        label=f"the paper, A40: {paper.TOTAL_DAYS_ON_A40:g} days",
    )
    axis.set_yticks(range(len(devices)), [result["devices"][device]["title"] for device in devices])
    axis.invert_yaxis()
    axis.set(
        xscale="log",
        xlabel="days of the whole run; hatched: would be, if it fitted",
        title=f"Time of the whole run, batch {batch} x {seconds:g} s, the fastest precision and method",
    )
    axis.set_xlim(axis.get_xlim()[0], axis.get_xlim()[1] * 4)
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_memory(result: dict[str, Any], path: Path) -> None:
    """Plans against length, what devices can use as lines, the tasks' lengths as bands."""
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    batch, _ = shown_setting(result)
    figure, axes = plt.subplots(
        1, len(models), figsize=(6.5 * len(models), 5), layout="constrained", squeeze=False
    )
    usable = {
        name: held["usable_bytes"]
        for name, held in result["devices"].items()
        if held["usable_bytes"] is not None
    }
    for axis, model in zip(axes[0], models, strict=True):
        top = 0.0
        boards = [name for name in ("xavier-nx", "orin-nx", "rpi-4", *usable) if name in usable]
        device = boards[0] if boards else None
        for method, style in (("plain", "-"), ("remat", "--")):
            for precision, colour in (("fp32", "tab:blue"), ("mixed", "tab:orange")):
                points = sorted(
                    (row["seconds"], row["plan_bytes"] / 1e9)
                    for row in result["rows"]
                    if (row["device"], row["model"], row["method"], row["precision"], row["batch"])
                    == (device, model, method, precision, batch)
                    and row["plan_bytes"] is not None
                )
                if points:
                    axis.plot(
                        *zip(*points, strict=True),
                        style,
                        color=colour,
                        marker="o",
                        markersize=3,
                        label=f"{precision}, {method}",
                    )
                    top = max(top, points[-1][1])
        levels: dict[float, list[str]] = {}
        for name, size in usable.items():
            levels.setdefault(round(size / 1e9, 1), []).append(name)
        for place, (level, names) in enumerate(sorted(levels.items())):
            if level < 1.3 * top:
                axis.axhline(level, color="gray", linewidth=1)
                # Neighbours take turns, so that close lines' names do not lie on one another.
                at, side = ((1.0, "right"), (0.5, "center"))[place % 2]
                axis.text(
                    at,
                    level,
                    ", ".join(names),
                    fontsize=7,
                    ha=side,
                    va="bottom",
                    transform=axis.get_yaxis_transform(),
                )
        axis.axvline(
            paper.RELEASED_MODELS_SECONDS,
            color="tab:purple",
            linestyle=":",
            label=f"released models: over {paper.RELEASED_MODELS_SECONDS:g} s",
        )
        axis.axvspan(*paper.KEYWORD_SECONDS, color="tab:green", alpha=0.12, label="keyword spotting")
        title = result["devices"][device]["title"] if device else ""
        axis.set(
            xlabel="seconds of each utterance",
            ylabel="GB, compiler's plan",
            title=f"{model}, batch {batch}, plan for {title}; lines: usable",
            ylim=(0, max(1.3 * top, 1)),
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)

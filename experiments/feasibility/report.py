"""Write feasibility.md: the verdict first, then memory, time, bytes, energy and the sources."""

from typing import Any

from experiments import paper
from experiments.costs.devices.records import RunRow
from experiments.feasibility.verdicts import CRITERIA, in_words, overall, unmet, verdicts_of
from experiments.report.tables import table
from experiments.report.units import gigabytes, number, percent

SHOWN_BATCH = 4
UNKNOWN = "unknown"


def markdown(result: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    run, provenance = result["run"], result["provenance"]
    batch, seconds = shown_setting(result)
    least, most = paper.KEYWORD_SECONDS
    sections = [
        "# Are we there yet?",
        _verdict(result),
        "![verdicts](verdicts.png)",
        f"## Memory and time: batch {batch} x {seconds:g} s, whole run of {run['rounds']} rounds, "
        f"{run['clients']} clients, {run['hours']:g} h of speech",
        _settings(result),
        "![time](time.png)",
        "## The longest clip that fits, batch 1, fp32, AdamW",
        _longest(result),
        f"Keyword spotting takes clips of {least:g} to {most:g} s, and released models train on more than "
        f"{paper.RELEASED_MODELS_SECONDS:g} s (the paper, section 3.2).",
        "![memory](memory.png)",
        f"## Bytes over {result['link']['title']} ({result['link']['source']})",
        _bytes(result),
        "## A round with unlike clients",
        _fleet(result),
        "## More speech",
        _corpora(result),
        "## What this rests on",
        _grounds(result),
        _devices(result),
        f"`{provenance['command']}`, commit {provenance['commit']}",
    ]
    return "\n\n".join(sections) + "\n"


def _verdict(result: dict[str, Any]) -> str:
    """Answer for every device, and by how much."""
    devices = verdicts_of(result)
    there = [device.title for device in devices if overall(device) == "yes"]
    answer = f"{', '.join(there)}: yes." if there else "By all criteria together no device is there yet."
    head = (
        "device",
        "compute: as fast as an A40",
        "memory: base, batch 8 x 12 s",
        "the same, remat",
        "the same, exact",
        "bytes: no more than its audio",
        "energy: no more than an A40's",
        "are we there?",
    )
    rows = [
        (device.title, *(in_words(device, name) for name in CRITERIA), overall(device)) for device in devices
    ]
    reading = (
        "Each cell is what there is over what is needed: one or more is a yes. Borderline: the cell's "
        f"own error (stated at the end) could turn it. Bytes count a run of {result['run']['rounds']} "
        "rounds against the client's raw audio, sent once."
    )
    words = " ".join(filter(None, (f"**{answer}**", unmet(devices), reading)))
    return f"{words}\n\n{table(head, rows)}"


def shown_setting(result: dict[str, Any]) -> tuple[int, float]:
    """Choose batch 4 and the paper's length, or the nearest that were asked for."""
    batch = min({row["batch"] for row in result["rows"]}, key=lambda b: abs(b - SHOWN_BATCH))
    seconds = min({row["seconds"] for row in result["rows"]}, key=lambda s: abs(s - paper.TABLE_2_SECONDS))
    return batch, seconds


def shown_rows(result: dict[str, Any]) -> list[RunRow]:
    """Read the rows of that setting."""
    rows = [RunRow.from_json(row) for row in result["rows"]]
    return [row for row in rows if (row.batch, row.seconds) == shown_setting(result)]


def _settings(result: dict[str, Any]) -> str:
    head = (
        "device",
        "model",
        "precision",
        "method",
        "plan, GB",
        "fits",
        "seconds a step",
        "by",
        "hours a client-epoch",
        "days, whole run",
        "J a step",
        "kWh a client, whole run",
    )
    rows = [
        (
            result["devices"][row.device]["title"],
            row.model,
            row.precision,
            row.method,
            gigabytes(row.plan_bytes, unknown=UNKNOWN),
            row.verdict,
            number(row.step_seconds),
            row.time_by,
            number(row.client_epoch_hours),
            number(row.run_days),
            number(row.joules_per_step),
            number(row.client_run_kwh),
        )
        for row in shown_rows(result)
        if row.verdict != "unknown" or row.step_seconds is not None
    ]
    return f"{table(head, rows)}\n\nA step that does not fit has the seconds that it would take if it did."


def _longest(result: dict[str, Any]) -> str:
    settings = list(dict.fromkeys((row["model"], row["method"]) for row in result["longest"]))
    found = {(row["device"], row["model"], row["method"]): row for row in result["longest"]}
    rows = [
        (held["title"], *(_clip(found[device, model, method]) for model, method in settings))
        for device, held in result["devices"].items()
    ]
    head = ("device", *(f"{model}, {method}" for model, method in settings))
    return f"{table(head, rows)}\n\nThe longest compiled clip has 15 s; longer ones are by the fit."


def _clip(row: dict[str, Any]) -> str:
    from experiments.costs.devices.costs import LIMIT_SECONDS

    if not row["known"]:
        return UNKNOWN
    if row["seconds"] is None:
        return "none"
    return f"over {LIMIT_SECONDS:g} s" if row["seconds"] >= LIMIT_SECONDS else f"{row['seconds']:.1f} s"


def _bytes(result: dict[str, Any]) -> str:
    head = (
        "model",
        "a round, up and down, GB",
        "seconds on this link",
        "whole run, GB",
        "hours on this link",
        "a client's audio, raw, GB",
        "compressed (48 kbit/s), GB",
        "more than raw from round",
        "more than compressed from round",
    )
    rows = [
        (
            model,
            gigabytes(row["round_bytes"]),
            f"{row['round_link_seconds']:.0f}",
            gigabytes(row["run_bytes"], 0),
            f"{row['run_link_hours']:.1f}",
            gigabytes(row["audio_raw_bytes"]),
            gigabytes(row["audio_compressed_bytes"]),
            row["break_even_raw"],
            row["break_even_compressed"],
        )
        for model, row in result["bytes"].items()
    ]
    said = "The client takes part in every round; parameters travel in fp32, uncompressed."
    return f"{table(head, rows)}\n\n{said}"


def _fleet(result: dict[str, Any]) -> str:
    fleet = result["fleet"]
    rows = []
    for member in fleet["members"]:
        setting, hours = member["setting"], member["hours"]
        words = (
            f"batch {setting['batch']}, {setting['precision']}, {setting['method']}"
            if hours is not None
            else f"cannot take part: {setting['why']}"
        )
        rows.append((member["title"], member["count"], words, None if hours is None else f"{hours:.2f}"))
    if fleet["wall_clock_hours"] is None:
        said = "The length of the round is unknown: a client cannot take part, or its times are unknown."
    else:
        said = (
            f"{fleet['model']}: the round takes {fleet['wall_clock_hours']:.2f} h, of which "
            f"{fleet['link_hours'] * 60:.1f} min are on the link. Clients wait for the slowest during "
            f"{percent(fleet['waiting_share'])} of their time."
        )
    return f"{table(('device', 'clients', 'setting', 'hours of a local epoch'), rows)}\n\n{said}"


def _corpora(result: dict[str, Any]) -> str:
    if not result["corpora"]:
        return "No setting that was asked for fits and has a known time."
    hours = list(dict.fromkeys(key for row in result["corpora"] for key in row["days"]))
    rows = []
    for row in result["corpora"]:
        setting = row["setting"]
        batch = f"batch {setting['batch']} x {setting['seconds']:g} s"
        words = f"{batch}, {setting['precision']}, {setting['method']}"
        title = result["devices"][row["device"]]["title"]
        rows.append((title, row["model"], words, *(number(row["days"][key]) for key in hours)))
    head = ("device", "model", "setting", *(f"days, {float(key):,.0f} h" for key in hours))
    return (
        f"{table(head, rows)}\n\nThe run has as many rounds as above over {result['run']['clients']} "
        "clients, each with its share, by the fastest setting that fits."
    )


def _grounds(result: dict[str, Any]) -> str:
    """State the assumptions and their errors, as a list."""
    usable = (
        "Usable is three quarters of the memory (XLA's own default), on phones a half."
        if result["headroom"] is None
        else f"Usable is {percent(1 - result['headroom'])} of the memory."
    )
    return "\n".join(
        (
            "- Memory: a compiler's plan with AdamW; between compiled settings a fit. "
            f"{_fit_errors(result['plan_fit_errors'])} A measured peak was up to "
            f"{percent(result['plan_error'])} from its plan (docs/results/profile, on a CPU). A verdict "
            "inside these errors is borderline. "
            "The A40 and Thor take Orin's plans, phones and Raspberry Pis those of XLA for this CPU. "
            f"{usable}{_without_plans(result)}",
            "- GB are 1e9 bytes. Memory is sold in binary units: 8 GB on a box are 8.59 GB here.",
            "- The paper's class: the paper names a range of memory for a device and not its variant. A row "
            "with the upper end of that range stands beside the device where the two differ; a phone whose "
            "maker publishes no memory has that row alone.",
            "- Seconds: a printed or measured time where there is one, else the model of `w2v-jax reproduce "
            "table2`, which states its errors. A device that it was not calibrated on goes by its data sheet "
            f"alone; for the devices of Table 2 that was off by up to a factor of "
            f"{result['worst_factor']:.1f}. Compute and energy inside that factor are borderline.",
            f"- Rounds: {result['run']['rounds_from']}. A round is one local epoch. Energy: the device's "
            "highest power mode, chip's rating or board's supply for as long as it computes: an upper bound.",
            "- A value that nobody publishes is unknown here.",
        )
    )


def _without_plans(result: dict[str, Any]) -> str:
    """Name the models whose memory no row knows."""
    models = dict.fromkeys(row["model"] for row in result["rows"])
    planned = {row["model"] for row in result["rows"] if row["plan_bytes"] is not None}
    absent = [model for model in models if model not in planned]
    if not absent:
        return ""
    return f" On these devices no compiler's memory plans are kept for {', '.join(absent)}: unknown."


def _fit_errors(errors: dict[str, float]) -> str:
    """State how far the fit was from compiled plans that it had not seen, and name the worst kind."""
    worst, *others = sorted(errors, key=lambda name: -errors[name])
    rest = f", {percent(errors[others[0]])} at most for all other kinds" if others else ""
    return f"The fit was {percent(errors[worst])} off an unseen plan at worst ({worst}){rest}."


def _devices(result: dict[str, Any]) -> str:
    rows = [
        (
            row["title"],
            gigabytes(row["memory_bytes"], unknown=UNKNOWN),
            gigabytes(row["usable_bytes"], unknown=UNKNOWN),
            row["watts"] or UNKNOWN,
            row["times_by"],
            row["source"],
        )
        for row in result["devices"].values()
    ]
    return table(("device", "memory, GB", "usable, GB", "W", "times by", "source"), rows)

"""`w2v-jax feasibility`: which devices could pre-train, in how long, and what it would move and burn."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments import paper
from experiments.costs.devices.plan_grid import METHODS
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import nearest
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

LONGEST_SECONDS = 60.0
CORPUS_HOURS = (288.0, 1_000.0, 10_000.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeasibilityArguments:
    """Memory, time, bytes and energy of federated pre-training, device by device, and a verdict (minutes).

    example: w2v-jax feasibility --devices xavier-nx orin-nx --link lte --out reports/feasibility
    """

    out: Path
    """Folder for feasibility.json, feasibility.md and PNGs."""
    devices: tuple[str, ...] = ()
    """Names in the catalogue (profiling/devices.py), or this-machine, whose rates are measured. Default:
    boards, phones, computers, and the A40."""
    models: tuple[Literal["base", "large"], ...] = ("base", "large")
    """Presets."""
    seconds: tuple[float, ...] = (1.0, 2.0, 3.0, 5.5, 12.0, 15.0)
    """Lengths of utterances."""
    batch: tuple[int, ...] = (1, 4, 8)
    """Utterances in a batch."""
    precision: tuple[Literal["fp32", "mixed"], ...] = ("fp32", "mixed")
    """mixed: bf16 where the device has it, else fp16."""
    method: tuple[str, ...] = METHODS
    """How gradients are computed: plain, remat (layers again in the backward pass) or exact (all that takes
    less memory and changes no gradient: w2v-jax bench memory --list)."""
    rounds: int | None = None
    """Rounds of the whole run. Default: the paper's two weeks on an A40, in local epochs."""
    clients: int = 10
    """Clients that share the corpus; all take part in every round."""
    hours: float = paper.VALIDATED_HOURS
    """Hours of speech of all clients together."""
    link: str = "lte"
    """Each client's link: ethernet, gigabit, wifi-n, lte (nominal), or DOWN/UP in Mbit/s, as 20/5."""
    fleet: tuple[str, ...] = ("xavier-nx=8", "rpi-4=2")
    """Devices of one round as NAME=COUNT, for its wall clock: the slowest decides."""
    headroom: float | None = None
    """Share of memory left to all else. Default: a quarter, on phones a half."""
    timings: tuple[Path, ...] = ()
    """Files that runner.py wrote on boards: each calibrates its device."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(FeasibilityArguments, argv, "w2v-jax feasibility")
    devices, fleet, link = check(options)
    from experiments.costs.devices import plan_surface
    from experiments.costs.devices.timings import read_timings
    from experiments.feasibility import figures as feasibility_pictures
    from experiments.feasibility import report as feasibility_report

    with arguments.blaming("--timings"):
        measured = [read_timings(path) for path in options.timings]
    plan_surface.kept()
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = feasibility(options, devices, fleet, link, measured)
    result["provenance"] = record_provenance("feasibility")
    write_json(options.out / "feasibility.json", result)
    text = feasibility_report.markdown(result)
    replace_file(options.out / "feasibility.md", text)
    pictures = feasibility_pictures.draw(result, options.out)
    print(text)
    print(f"written: {options.out / 'feasibility.json'}, feasibility.md, {', '.join(pictures)}")


def check(options: FeasibilityArguments) -> tuple[list[str], dict[str, int], Any]:
    """Devices, fleet and link by name.

    Raises:
        UsageError: in one line.
    """
    from profiling import this_machine
    from profiling.devices import DEVICES
    from profiling.feasibility import LINKS, Link

    known = (*DEVICES, this_machine.NAME)
    for method in options.method:
        arguments.check_choice("--method", method, METHODS)
    for name in ("clients", "hours", "rounds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} must be positive and finite, got {value}")
    if any(not 0.1 <= value <= LONGEST_SECONDS for value in options.seconds):
        raise UsageError(f"--seconds must be between 0.1 and {LONGEST_SECONDS:g}")
    arguments.check_at_least(1, options, "batch")
    if options.headroom is not None and not 0 <= options.headroom < 1:
        raise UsageError(f"--headroom is a share between 0 and 1, got {options.headroom:g}")
    default = [name for name, device in DEVICES.items() if device.kind != "server"]
    for name in options.devices:
        arguments.check_choice("--devices", name, known)
    devices = list(options.devices) or ["a40", *default]
    fleet: dict[str, int] = {}
    for word in options.fleet:
        name, _, count = word.partition("=")
        if not count.isdigit() or int(count) < 1:
            raise UsageError(f"--fleet takes NAME=COUNT such as xavier-nx=8, got '{word}'")
        arguments.check_choice("--fleet", name, known)
        fleet[name] = fleet.get(name, 0) + int(count)
    if options.link in LINKS:
        return devices, fleet, LINKS[options.link]
    try:
        down, up = (float(rate) for rate in options.link.split("/"))
        if not (0 < down < float("inf") and 0 < up < float("inf")):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{nearest(options.link, list(LINKS), '--link')}, or give DOWN/UP in Mbit/s such as 20/5"
        ) from None
    return devices, fleet, Link(f"{down:g} down and {up:g} up, Mbit/s", down, up, "given")


def feasibility(
    options: FeasibilityArguments, devices: list[str], fleet: dict[str, int], link: Any, measured: list[Any]
) -> dict[str, Any]:
    """Everything that the report shows, as plain numbers."""
    from experiments.costs.devices import paper_seconds as table2
    from experiments.costs.devices.costs import DeviceCosts
    from experiments.process.progress import stage
    from profiling import this_machine

    extra = {}
    if this_machine.NAME in (*devices, *fleet):
        stage("measuring this machine")
        extra[this_machine.NAME] = this_machine.this_machine()
    stage("fitting the step-time model to Table 2")
    rounds = options.rounds or round(table2.implied_epochs())
    costs = DeviceCosts(measured, options.headroom, extra)
    run = {
        "rounds": rounds,
        "rounds_from": "given" if options.rounds else "two weeks on the A40, as the paper has it",
        "clients": options.clients,
        "hours": options.hours,
        "client_audio_seconds": options.hours * 3600 / options.clients,
        # The paper's clips, at its mean of 5.5 s: other lengths hold the same audio in more or fewer clips.
        "client_clip_seconds": options.hours
        / paper.VALIDATED_HOURS
        * paper.TEN_CLIENT_CLIPS
        * paper.TABLE_2_SECONDS
        * 10
        / options.clients,
    }
    rows = []
    for name in devices:
        stage(f"pricing steps on {name}")
        for model in options.models:
            for method in options.method:
                for precision in options.precision:
                    for batch in options.batch:
                        for seconds in options.seconds:
                            row = costs.row(name, model, method, precision, batch, seconds)
                            rows.append(row | of_a_run(row, run, costs.devices[name].watts))
    bytes_ = {model: federated_bytes(model, run, link) for model in dict.fromkeys(("base", *options.models))}
    bytes_ratio = bytes_["base"]["audio_raw_bytes"] / bytes_["base"]["run_bytes"]
    return {
        "run": run,
        "link": link._asdict(),
        "devices": {name: costs.describe(name) for name in devices},
        "rows": rows,
        "longest": [
            costs.longest(name, model, method)
            for name in devices
            for model in options.models
            for method in options.method
        ],
        "bytes": bytes_,
        "corpora": corpora(rows, options, run),
        "fleet": round_of(fleet, costs, run, bytes_, options.models[0]),
        "verdicts": [costs.judge(name, bytes_ratio) for name in devices],
        "keyword_seconds": paper.KEYWORD_SECONDS,
        "released_models_seconds": paper.RELEASED_MODELS_SECONDS,
        "plan_fit_errors": costs.plan_fit_errors,
        "worst_factor": costs.worst_factor,
        "headroom": options.headroom,
    }


def of_a_run(row: dict[str, Any], run: dict[str, Any], watts: float | None) -> dict[str, Any]:
    """Hours of a client-epoch, days and energy of all rounds; None where a step's time is unknown."""
    step = row["step_seconds"]
    if step is None:
        return {"client_epoch_hours": None, "run_days": None, "client_run_kwh": None, "joules_per_step": None}
    steps = run["client_clip_seconds"] / row["seconds"] / row["batch"]
    hours = steps * step / 3600
    return {
        "client_epoch_hours": hours,
        "run_days": hours * run["rounds"] / 24,
        "joules_per_step": watts and watts * step,
        "client_run_kwh": watts and watts * hours * run["rounds"] / 1000,
    }


def federated_bytes(model: str, run: dict[str, Any], link: Any) -> dict[str, Any]:
    """What a client moves in a round and in all, beside what its audio would be once."""
    import jax

    from experiments.costs.step.training_step import abstract_key, tree_bytes
    from profiling import feasibility as rules
    from w2v_jax.config import PRESETS
    from w2v_jax.objective.pretraining import pretraining_objective

    size = tree_bytes(jax.eval_shape(pretraining_objective(PRESETS[model]).init, abstract_key())[0])
    audio = run["client_audio_seconds"]
    raw, compressed = rules.audio_bytes(audio), rules.audio_bytes(audio, compressed=True)
    return {
        "model_bytes": size,
        "round_bytes": 2 * size,
        "round_link_seconds": link.seconds(size, size),
        "run_bytes": 2 * size * run["rounds"],
        "run_link_hours": link.seconds(size, size) * run["rounds"] / 3600,
        "audio_raw_bytes": raw,
        "audio_compressed_bytes": compressed,
        "audio_link_hours": link.seconds(0, raw) / 3600,
        "break_even_raw": rules.break_even_rounds(2 * size, raw),
        "break_even_compressed": rules.break_even_rounds(2 * size, compressed),
    }


def corpora(
    rows: list[dict[str, Any]], options: FeasibilityArguments, run: dict[str, Any]
) -> list[dict[str, Any]]:
    """Days of a whole run on more speech, for the fastest setting of each device and model that fits."""
    found = []
    for device, model in dict.fromkeys((row["device"], row["model"]) for row in rows):
        fitting = [
            row
            for row in rows
            if (row["device"], row["model"], row["verdict"]) == (device, model, "fits")
            and row["run_days"] is not None
        ]
        # Lengths near the corpus's own: shorter clips are another training.
        near = min((abs(row["seconds"] - paper.TABLE_2_SECONDS) for row in fitting), default=None)
        fitting = [row for row in fitting if abs(row["seconds"] - paper.TABLE_2_SECONDS) == near]
        best = min(fitting, key=lambda row: row["run_days"], default=None)
        if best is not None:
            days = {f"{hours:g}": best["run_days"] * hours / run["hours"] for hours in CORPUS_HOURS}
            kept = {key: best[key] for key in ("seconds", "batch", "precision", "method")}
            found.append({"device": device, "model": model, "setting": kept, "days": days})
    return found


def round_of(
    fleet: dict[str, int], costs: Any, run: dict[str, Any], bytes_: dict[str, Any], model: str
) -> dict[str, Any]:
    """A round's wall clock over unlike clients: training by the slowest, and the link."""
    members = []
    for name, count in fleet.items():
        step, setting = costs.fastest(name, model)
        if step is None:
            hours = None
        else:
            hours = run["client_clip_seconds"] / paper.TABLE_2_SECONDS / setting["batch"] * step / 3600
        title = costs.devices[name].title
        members.append({"device": name, "title": title, "count": count, "hours": hours, "setting": setting})
    known = [member["hours"] for member in members if member["hours"] is not None]
    complete = len(known) == len(members)
    slowest = max(known) if complete else None
    busy = sum(m["count"] * m["hours"] for m in members if m["hours"] is not None)
    total = sum(member["count"] for member in members)
    link_hours = bytes_[model]["round_link_seconds"] / 3600
    return {
        "model": model,
        "members": members,
        "slowest_hours": slowest,
        "link_hours": link_hours,
        "wall_clock_hours": None if slowest is None else slowest + link_hours,
        "waiting_share": None if slowest is None else 1 - busy / (total * slowest),
    }

"""Price federated pre-training on devices: steps, whole runs, bytes, a round over unlike clients."""

import itertools
from typing import Any

from experiments import paper
from experiments.costs.devices.records import PLAN_ERROR, RunRow, StepRow

CORPUS_HOURS = (288.0, 1_000.0, 10_000.0)


def feasibility(
    options: Any, devices: list[str], fleet: dict[str, int], link: Any, measured: list[Any]
) -> dict[str, Any]:
    """Compute everything that the report shows, as JSON.

    Args:
        options: FeasibilityArguments.
        devices: names in the catalogue, or this-machine.
        fleet: name -> clients with that device, for one round.
        link: each client's, a profiling.feasibility.Link.
        measured: timings of boards, as read_timings gives them.
    """
    from experiments.costs.devices.costs import DeviceCosts
    from experiments.costs.devices.judgement import judge
    from experiments.process.progress import stage
    from profiling import this_machine

    extra = {}
    if this_machine.NAME in (*devices, *fleet):
        stage("measuring this machine")
        extra[this_machine.NAME] = this_machine.this_machine()
    stage("fitting the step-time model to Table 2")
    costs = DeviceCosts(measured, options.headroom, extra)
    run = run_of(options)
    rows = run_rows(options, devices, costs, run)
    bytes_ = {model: federated_bytes(model, run, link) for model in dict.fromkeys(("base", *options.models))}
    bytes_ratio = bytes_["base"]["audio_raw_bytes"] / bytes_["base"]["run_bytes"]
    return {
        "run": run,
        "link": link._asdict(),
        "devices": {name: costs.describe(name) for name in devices},
        "rows": [row.to_json() for row in rows],
        "longest": [
            costs.longest(name, model, method)
            for name in devices
            for model in options.models
            for method in options.method
        ],
        "bytes": bytes_,
        "corpora": corpora(rows, run),
        "fleet": round_of(fleet, costs, run, bytes_, options.models[0]),
        "verdicts": [judge(costs, name, bytes_ratio).to_json() for name in devices],
        "keyword_seconds": paper.KEYWORD_SECONDS,
        "released_models_seconds": paper.RELEASED_MODELS_SECONDS,
        "plan_error": PLAN_ERROR,
        "plan_fit_errors": costs.plan_fit_errors,
        "worst_factor": costs.worst_factor,
        "headroom": options.headroom,
    }


def run_of(options: Any) -> dict[str, Any]:
    """Describe the whole federated run: rounds, clients, and each client's audio in seconds."""
    from experiments.costs.devices import paper_seconds

    return {
        "rounds": options.rounds or round(paper_seconds.implied_epochs()),
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


def run_rows(options: Any, devices: list[str], costs: Any, run: dict[str, Any]) -> list[RunRow]:
    """Price every setting on every device."""
    from experiments.process.progress import stage

    rows = []
    for name in devices:
        stage(f"pricing steps on {name}")
        for model, method, precision, batch, seconds in itertools.product(
            options.models, options.method, options.precision, options.batch, options.seconds
        ):
            row = costs.row(name, model, method, precision, batch, seconds)
            rows.append(RunRow(**row.to_json(), **of_a_run(row, run, costs.devices[name].watts)))
    return rows


def of_a_run(row: StepRow, run: dict[str, Any], watts: float | None) -> dict[str, Any]:
    """Compute hours of a client-epoch, days and energy of all rounds; None where a step's time is unknown."""
    step = row.step_seconds
    if step is None:
        return {"client_epoch_hours": None, "run_days": None, "client_run_kwh": None, "joules_per_step": None}
    steps = run["client_clip_seconds"] / row.seconds / row.batch
    hours = steps * step / 3600
    return {
        "client_epoch_hours": hours,
        "run_days": hours * run["rounds"] / 24,
        "joules_per_step": watts and watts * step,
        "client_run_kwh": watts and watts * hours * run["rounds"] / 1000,
    }


def federated_bytes(
    model: str, run: dict[str, Any], link: Any, up: Any = None, down: Any = None
) -> dict[str, Any]:
    """Count the bytes that a client moves in a round of FedAvg and in all, and the bytes of its audio.

    `up` and `down` are codecs of `fed.compression` for the client's update and the server's model.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.costs.step.training_step import abstract_key, tree_bytes
    from fed.algorithms.averaging import averaging
    from fed.client import LocalTraining
    from fed.compression.compressed import compressed
    from fed.compression.transfers import client_transfers
    from profiling import feasibility as rules
    from w2v_jax.config import PRESETS
    from w2v_jax.objective.pretraining import pretraining_objective

    objective = pretraining_objective(PRESETS[model])
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(1e-4))
    parameters, _ = jax.eval_shape(objective.init, abstract_key())
    sent = client_transfers(compressed(averaging(), up, down), training, parameters)
    both, seconds = sent.down + sent.up, link.seconds(sent.down, sent.up)
    audio = run["client_audio_seconds"]
    raw, compressed_audio = rules.audio_bytes(audio), rules.audio_bytes(audio, compressed=True)
    return {
        "model_bytes": tree_bytes(parameters),
        "round_bytes": both,
        "round_link_seconds": seconds,
        "run_bytes": both * run["rounds"],
        "run_link_hours": seconds * run["rounds"] / 3600,
        "audio_raw_bytes": raw,
        "audio_compressed_bytes": compressed_audio,
        "audio_link_hours": link.seconds(0, raw) / 3600,
        "break_even_raw": rules.break_even_rounds(both, raw),
        "break_even_compressed": rules.break_even_rounds(both, compressed_audio),
    }


def corpora(rows: list[RunRow], run: dict[str, Any]) -> list[dict[str, Any]]:
    """Compute days of a whole run on more speech, by each device's fastest setting that fits."""
    found = []
    for device, model in dict.fromkeys((row.device, row.model) for row in rows):
        fitting = [
            (row.run_days, row)
            for row in rows
            if (row.device, row.model, row.verdict) == (device, model, "fits") and row.run_days is not None
        ]
        # Lengths near the corpus's own: shorter clips are another training.
        near = min((abs(row.seconds - paper.TABLE_2_SECONDS) for _, row in fitting), default=None)
        fitting = [pair for pair in fitting if abs(pair[1].seconds - paper.TABLE_2_SECONDS) == near]
        if fitting:
            days, best = min(fitting, key=lambda pair: pair[0])
            found.append(
                {
                    "device": device,
                    "model": model,
                    "setting": {
                        key: getattr(best, key) for key in ("seconds", "batch", "precision", "method")
                    },
                    "days": {f"{hours:g}": days * hours / run["hours"] for hours in CORPUS_HOURS},
                }
            )
    return found


def round_of(
    fleet: dict[str, int], costs: Any, run: dict[str, Any], bytes_: dict[str, Any], model: str
) -> dict[str, Any]:
    """Compute the wall clock of a round over unlike clients: training on the slowest, and the link."""
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

"""Probe encoders and their baselines on one corpus."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.models import encoders
from experiments.models.encoders import Source
from experiments.probe import labelled_clips
from experiments.probe.encoded import LOG_MEL, encoder_features, log_mel_features
from experiments.probe.judgement import HEADS, Features, difference, judge
from experiments.probe.labelled_clips import LabelledClips
from experiments.probe.options import ProbeArguments
from experiments.process.provenance import record_provenance
from experiments.report.units import by_reason, percent
from fed.keys import initial_key
from w2v_jax.config import ENCODER_SHAPE, SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.common_voice import lengths, take
from w2v_jax.model import log_mel
from w2v_jax.model.binding import Parameters, bind
from w2v_jax.model.wav2vec2 import Encoder

MIN_SAMPLES = log_mel.STACKED * log_mel.LOG_MEL_HOP_SAMPLES + log_mel.LOG_MEL_WINDOW_SAMPLES


class Arm(NamedTuple):
    """One row of the table.

    Attributes:
        name: as the table shows it.
        kind: "run", "random" or "log-mel".
        features: computes its features of the clips.
        random: name of the arm that has its shape and no training; None for arms that are no run.
        description: where its encoder comes from.
    """

    name: str
    kind: str
    features: Callable[[LabelledClips], Features]
    random: str | None = None
    description: dict[str, Any] | None = None


def probe(options: ProbeArguments) -> dict[str, Any]:
    """Probe all arms.

    Raises:
        UserError: no such encoder, or no such corpus or classes.
    """
    sources = {name: encoders.load(name, None) for name in dict.fromkeys(options.runs)}
    for source in sources.values():
        print(*source.notes, sep="\n", end="\n" * bool(source.notes))
    shortest = max(MIN_SAMPLES, *(held.config.receptive_field_samples for held in sources.values()))
    labelled = labelled_clips.load(
        options.data, options.task, options.column, min_samples=shortest, seed=options.seed
    )
    told = summary(labelled)
    print(f"{told['classes']} classes; " + splits_line(told), *labelled.notes, sep="\n", flush=True)
    shares = [share / 100 for share in sorted(set(options.labels)) if share < 100]
    rows = {}
    for arm in arms(sources):
        found = judge(arm.features(labelled), labelled, options.heads, shares, options.seed)
        rows[arm.name] = {"kind": arm.kind, "random": arm.random, "encoder": arm.description} | found
        print(f"{arm.name}: linear probe {percent(found['linear']['accuracy'], 1)}", flush=True)
    compare(rows)
    return {
        "data": options.data,
        "task": options.task,
        "column": options.column if options.task == "keywords" else "client_id",
        "heads": [HEADS[head] for head in HEADS if head in options.heads or head == "linear"],
        "seed": options.seed,
        "clips": told,
        "classes": list(labelled.classes),
        "notes": list(labelled.notes),
        "arms": rows,
        "provenance": record_provenance("probe", options.seed),
    }


def arms(sources: dict[str, Source]) -> list[Arm]:
    """List the arms: log-mel, each random encoder once, and the runs."""
    found: dict[str, Arm] = {LOG_MEL: Arm(LOG_MEL, LOG_MEL, lambda held: log_mel_features(held.clips))}
    runs, names = [], dict[tuple[Any, ...], str]()
    for name, source in sources.items():
        seed = (source.description.get("pretraining") or {}).get("seed") or 0
        shape = _untrained(source.config, seed)
        if shape not in names:
            model = source.description["model"]
            names[shape] = f"random {model}, seed {seed}"
            if names[shape] in found:
                names[shape] += f" ({len(found)})"
            found[names[shape]] = _arm(
                names[shape], "random", source.config, random_parameters(source.config, seed)
            )
        assert source.parameters is not None
        made = _arm(name, "run", source.config, source.parameters)
        runs.append(made._replace(random=names[shape], description=source.description))
    return [*found.values(), *runs]


def random_parameters(config: ModelConfig, seed: int) -> Parameters:
    """Make the parameters with which a pre-training run of this configuration and seed begins."""
    make, _ = bind(lambda key: Encoder(config, key))
    return jax.jit(make)(initial_key(seed))


def compare(rows: dict[str, Any]) -> None:
    """Add to every run its differences from log-mel and from its random encoder, speaker by speaker."""
    for row in rows.values():
        if row["kind"] != "run":
            continue
        row["gain"] = {
            head: {
                baseline: difference(row[head], rows[name][head])
                for baseline, name in ((LOG_MEL, LOG_MEL), ("random", row["random"]))
            }
            for head in HEADS.values()
            if head in row
        }


def summary(labelled: LabelledClips) -> dict[str, Any]:
    """Count clips, speakers and seconds of every split."""
    speakers = labelled.speakers()
    found = {}
    for split in ("train", "dev", "test"):
        own = labelled.of(split)
        found[split] = {
            "clips": len(own),
            "speakers": len(set(speakers[own].tolist())),
            "seconds": float(lengths(take(labelled.clips, own.tolist())).sum() / SAMPLE_RATE_HZ),
        }
    return {"classes": len(labelled.classes), "splits": found, "left_out": labelled.left_out}


def splits_line(told: dict[str, Any]) -> str:
    """Say how many clips and speakers every split has, and what was left out."""
    parts = [
        f"{split}: {held['clips']} clips of {held['speakers']} speakers"
        for split, held in told["splits"].items()
    ]
    left_out = by_reason(told["left_out"])
    return ", ".join(parts) + (f"; left out: {left_out}" if left_out else "")


def _arm(name: str, kind: str, config: ModelConfig, parameters: Parameters) -> Arm:
    return Arm(name, kind, lambda held: encoder_features(config, parameters, held.clips))


def _untrained(config: ModelConfig, seed: int) -> tuple[Any, ...]:
    """Collect what an untrained encoder's frames depend on."""
    computed = ("transformer_initial_std", "normalise_waveform", "compute_dtype")
    return (seed, *(getattr(config, name) for name in (*ENCODER_SHAPE, *computed)))

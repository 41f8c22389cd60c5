"""Probe encoders and their baselines on one corpus."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.models import encoders
from experiments.models.encoders import Source
from experiments.probe import characters, judgement, labelled_clips, transcribed_clips
from experiments.probe.encoded import (
    LOG_MEL,
    encoder_features,
    encoder_frames,
    log_mel_features,
    log_mel_frames,
    num_character_frames,
)
from experiments.probe.judgement import HEADS, difference
from experiments.probe.labelled_clips import LabelledClips
from experiments.probe.metrics import metric_of
from experiments.probe.options import ProbeArguments
from experiments.probe.split_clips import SplitClips
from experiments.probe.transcribed_clips import TranscribedClips
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
        encoder: its configuration and parameters; None for log-mel.
        random: name of the arm that has its shape and no training; None for arms that are no run.
        description: where its encoder comes from.
    """

    name: str
    kind: str
    encoder: tuple[ModelConfig, Parameters] | None = None
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
    held, judged = _task(options, shortest, [source.config for source in sources.values()])
    told = summary(held)
    print(splits_line(told), *held.notes, sep="\n", flush=True)
    metric = metric_of(options.task)
    rows = {}
    for arm in arms(sources):
        found = judged(arm)
        rows[arm.name] = {"kind": arm.kind, "random": arm.random, "encoder": arm.description} | found
        score = percent(found["linear"][metric.key], 1)
        print(f"{arm.name}: {metric.name} of the linear probe {score}", flush=True)
    compare(rows)
    return {
        "data": options.data,
        "task": options.task,
        "column": {"keywords": options.column, "speaker": "client_id"}.get(options.task, "sentence"),
        "heads": [HEADS[head] for head in HEADS if head in options.heads or head == "linear"],
        "seed": options.seed,
        "clips": told,
        "classes": list(classes(held)),
        "notes": list(held.notes),
        "arms": rows,
        "provenance": record_provenance("probe", options.seed),
    }


def _task(
    options: ProbeArguments, min_samples: int, configs: Sequence[ModelConfig]
) -> tuple[SplitClips, Callable[[Arm], dict[str, Any]]]:
    """Read the clips of a task, and make the function that judges an arm by them."""
    shares = [share / 100 for share in sorted(set(options.labels)) if share < 100]
    chosen = (options.heads, shares, options.seed)
    if options.task == "characters":

        def fewest_frames(num_samples: np.ndarray) -> np.ndarray:
            return np.min([num_character_frames(config, num_samples) for config in (None, *configs)], axis=0)

        spoken = transcribed_clips.load(options.data, min_samples=min_samples, num_frames=fewest_frames)

        def judged(arm: Arm) -> dict[str, Any]:
            made = encoder_frames(*arm.encoder, spoken.clips) if arm.encoder else log_mel_frames(spoken.clips)
            return characters.judge(made, spoken, *chosen)

        return spoken, judged

    held = labelled_clips.load(
        options.data, options.task, options.column, min_samples=min_samples, seed=options.seed
    )

    def classified(arm: Arm) -> dict[str, Any]:
        made = encoder_features(*arm.encoder, held.clips) if arm.encoder else log_mel_features(held.clips)
        return judgement.judge(made, held, *chosen)

    return held, classified


def classes(held: SplitClips) -> Sequence[str]:
    """List the classes of the clips, or the characters of their transcripts."""
    if isinstance(held, LabelledClips):
        return held.classes
    assert isinstance(held, TranscribedClips)
    return tuple(held.tokenizer.alphabet)


def arms(sources: dict[str, Source]) -> list[Arm]:
    """List the arms: log-mel, each random encoder once, and the runs."""
    found: dict[str, Arm] = {LOG_MEL: Arm(LOG_MEL, LOG_MEL)}
    runs, names = [], dict[tuple[Any, ...], str]()
    for name, source in sources.items():
        seed = (source.description.get("pretraining") or {}).get("seed") or 0
        shape = _untrained(source.config, seed)
        if shape not in names:
            model = source.description["model"]
            names[shape] = f"random {model}, seed {seed}"
            if names[shape] in found:
                names[shape] += f" ({len(found)})"
            encoder = (source.config, random_parameters(source.config, seed))
            found[names[shape]] = Arm(names[shape], "random", encoder)
        assert source.parameters is not None
        encoder = (source.config, source.parameters)
        runs.append(Arm(name, "run", encoder, names[shape], source.description))
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


def summary(held: SplitClips) -> dict[str, Any]:
    """Count classes or characters, and clips, speakers and seconds of every split."""
    speakers = held.speakers()
    found = {}
    for split in ("train", "dev", "test"):
        own = held.of(split)
        found[split] = {
            "clips": len(own),
            "speakers": len(set(speakers[own].tolist())),
            "seconds": float(lengths(take(held.clips, own.tolist())).sum() / SAMPLE_RATE_HZ),
        }
    what = "classes" if isinstance(held, LabelledClips) else "characters"
    return {what: len(classes(held)), "splits": found, "left_out": held.left_out}


def splits_line(told: dict[str, Any]) -> str:
    """Say how many classes or characters there are, each split's clips and speakers, and what is left out."""
    first = next(f"{told[what]} {what}; " for what in ("classes", "characters") if what in told)
    parts = [
        f"{split}: {held['clips']} clips of {held['speakers']} speakers"
        for split, held in told["splits"].items()
    ]
    left_out = by_reason(told["left_out"])
    return first + ", ".join(parts) + (f"; left out: {left_out}" if left_out else "")


def _untrained(config: ModelConfig, seed: int) -> tuple[Any, ...]:
    """Collect what an untrained encoder's frames depend on."""
    computed = ("transformer_initial_std", "normalise_waveform", "compute_dtype")
    return (seed, *(getattr(config, name) for name in (*ENCODER_SHAPE, *computed)))

"""`w2v-jax finetune`: speech recognition by CTC, or keyword spotting, on top of an encoder."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.recognition.options import FinetuneArguments
from experiments.runs import tracking
from w2v_jax import config as model_config
from w2v_jax.text.rules import DOTLESS

MAX_SEED = 2**31

# Settings that run folders of older versions lack, and their values then.
ABSENT_SETTINGS = {
    "language": "", "task": "recognition", "column": "sentence", "pooling": None, "segments": None,
    "layers": None, "labels": None, "label_smoothing": None, "minutes": None, "clients": None,
    "partition": "balanced", "clients_per_round": None, "rounds": None, "local_steps": None,
    "algorithm": "fedavg", "algorithm_options": [], "client_states": "memory", "personalise": None,
}  # fmt: skip
# Defaults of the options that depend on the task.
DEFAULTS: dict[str, dict[str, Any]] = {
    "recognition": {
        "head_blocks": 3, "head_optimizer": "adadelta", "schedule": "newbob", "select_by": "wer",
    },
    "keywords": {
        "head_blocks": 0, "head_optimizer": "adam", "schedule": "tri-stage", "select_by": "accuracy",
        "pooling": "mean", "layers": "last", "label_smoothing": 0.0,
    },
}  # fmt: skip
# NewBob waits for validations that stall; a run of minutes, and a federated one, rather follow a schedule of
# their length.
DEFAULTS_OF_PLANNED = {"head_optimizer": "adam", "schedule": "tri-stage"}
SELECTED_BY = {"recognition": ("wer", "cer", "loss"), "keywords": ("accuracy", "loss")}
# Options that have a meaning in one task alone.
OF_ONE_TASK = {
    "recognition": ("tokens", "pieces", "alphabet", "accents", "apostrophes", "language"),
    "keywords": ("column", "pooling", "segments", "layers", "labels", "label_smoothing"),
}
# Options that have a meaning in federated training alone.
OF_CLIENTS = (
    "clients_per_round", "rounds", "local_steps", "algorithm", "algorithm_options", "client_states",
)  # fmt: skip
LOCAL_STEPS = 5
# Log-mel features have mean 0 over a clip: pooled in one part they say nothing, in six what follows what.
SEGMENTS = {"encoder": 1, "log-mel": 6}


def resolve(options: FinetuneArguments) -> dict[str, Any]:
    """Fill in defaults and check values: the settings that make a run what it is.

    Raises:
        UsageError: an unknown model, or a value out of range.
    """
    if options.model is not None:
        arguments.check_choice("--model", options.model, model_config.PRESETS)
    _check_task(options)
    federated = _check_federation(options)
    may_be_zero = (
        "seed",
        "head_blocks",
        "head_only_updates",
        "dropout",
        "encoder_learning_rate",
        "label_smoothing",
    )
    for name, value in dataclasses.asdict(options).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        option = option_name(name)
        if not math.isfinite(value):
            raise UsageError(f"{option} must be finite, got {value}")
        if value < 0 or (value == 0 and name not in may_be_zero):
            raise UsageError(f"{option} must be positive, got {value}")
    if not 0 <= options.seed < MAX_SEED:
        raise UsageError(f"--seed must be between 0 and {MAX_SEED - 1}, got {options.seed}")
    if options.dropout is not None and options.dropout >= 1:
        raise UsageError(f"--dropout must be below 1, got {options.dropout}")
    if options.features == "log-mel" and (options.init != "scratch" or options.freeze != "none"):
        raise UsageError("--features log-mel has no encoder: leave --init and --freeze out")
    if options.minutes is not None and options.updates is not None:
        raise UsageError("--minutes and --updates both say how long to train: give one of them")
    if options.tokens == "characters" and options.pieces != FinetuneArguments.pieces:
        raise UsageError("--pieces has a meaning with --tokens pieces alone")
    if options.tokens == "pieces" and options.alphabet is not None:
        raise UsageError("--alphabet has a meaning with --tokens characters alone")
    batch_seconds = options.batch_seconds
    if batch_seconds is not None and batch_seconds < options.max_seconds:
        raise UsageError(
            f"--batch-seconds {batch_seconds} cannot hold a clip of --max-seconds {options.max_seconds}"
        )
    if not re.fullmatch(r"([A-Za-z]{2,3}(-[A-Za-z0-9]+)*)?", options.language or ""):
        raise UsageError(
            f"--language takes a code as Common Voice writes it (tr, az), got {options.language}"
        )
    language = options.language
    if language is None:
        language = language_of(options.data) if options.task == "recognition" else ""
    given = dataclasses.asdict(options)
    planned = federated or options.minutes is not None
    defaults = DEFAULTS[options.task] | (DEFAULTS_OF_PLANNED if planned else {})
    if federated:
        defaults |= {"local_steps": LOCAL_STEPS}
    settings = given | {
        "data": str(options.data) if options.data else None,
        "language": language,
        **{name: value for name, value in defaults.items() if given[name] is None},
    }
    if options.task == "keywords" and options.segments is None:
        settings["segments"] = SEGMENTS[options.features]
    del settings["out"], settings["track"]
    return settings


def _check_task(options: FinetuneArguments) -> None:
    """Check that the options have a meaning in the task.

    Raises:
        UsageError: an option is of the other task, or a share is out of range.
    """
    task = options.task
    for other, names in OF_ONE_TASK.items():
        for name in names:
            if other != task and getattr(options, name) != getattr(FinetuneArguments, name):
                raise UsageError(f"{option_name(name)} has a meaning with --task {other} alone")
    if options.select_by not in (None, *SELECTED_BY[task]):
        choices = " or ".join(SELECTED_BY[task])
        raise UsageError(f"--select-by {options.select_by} has no meaning with --task {task}: give {choices}")
    if options.labels is not None and options.labels > 100:
        raise UsageError(
            f"--labels is a percentage of the training clips, at most 100, got {options.labels:g}"
        )
    if (options.label_smoothing or 0) >= 1:
        raise UsageError(f"--label-smoothing must be below 1, got {options.label_smoothing:g}")
    if task == "keywords" and options.head_width is not None and not options.head_blocks:
        raise UsageError("--head-width has a meaning with --head-blocks alone")
    if options.layers == "weighted" and options.features == "log-mel":
        raise UsageError("--features log-mel has no layers: leave --layers out")


def is_federated(settings: Mapping[str, Any]) -> bool:
    """Tell whether a run's settings ask for clients."""
    return settings["clients"] is not None or settings["partition"] == "speakers"


def _check_federation(options: FinetuneArguments) -> bool:
    """Check the options of federated training and of personalisation.

    Returns:
        Whether training is federated.

    Raises:
        UsageError: options that do not go together.
    """
    federated = is_federated(vars(options))
    for name in () if federated else OF_CLIENTS:
        if getattr(options, name) != getattr(FinetuneArguments, name):
            raise UsageError(f"{option_name(name)} has a meaning with --clients alone: add --clients N")
    if federated and options.minutes is not None:
        raise UsageError(
            "--minutes plans the updates of central training: give --rounds and --local-steps with --clients"
        )
    if federated and options.updates is not None:
        raise UsageError(
            "--updates counts those of central training: give --rounds and --local-steps with --clients"
        )
    if federated and options.schedule == "newbob":
        raise UsageError(
            "--schedule newbob follows validations, which clients do not see: give --schedule tri-stage, or "
            "leave it out"
        )
    if options.algorithm == "mime-lite":
        raise UsageError(
            "--algorithm mime-lite needs clients with plain SGD, and fine-tuning uses Adam: give another one"
        )
    if options.partition == "speakers" and options.clients is not None:
        raise UsageError("--clients has no meaning with --partition speakers: every speaker is a client")
    if options.clients is not None and (options.clients_per_round or 0) > options.clients:
        raise UsageError(
            f"--clients-per-round must be at most --clients {options.clients}, got "
            f"{options.clients_per_round}"
        )
    if options.personalise is not None and options.shuffle_transcripts:
        raise UsageError("--personalise scores clips by their own labels: leave --shuffle-transcripts out")
    return federated


def language_of(data: Path | None) -> str:
    """Find the language of a corpus by its locale, where that has a letter case of its own; else empty."""
    if data is None:
        return ""
    from experiments.data.corpora import locale_of

    locale = locale_of(str(data))
    return locale if locale.split("-")[0] in DOTLESS else ""


def default_folder(settings: dict[str, Any]) -> Path:
    """Name the run folder: runs/finetune-<name of init>, or runs/keywords-<name of init>."""
    kind = "keywords" if settings["task"] == "keywords" else "finetune"
    if settings["features"] == "log-mel":
        return Path(f"runs/{kind}-log-mel")
    return Path("runs") / f"{kind}-{Path(settings['init'].removeprefix('hf:')).name}"


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(FinetuneArguments, argv, "w2v-jax finetune")
    settings = resolve(options)
    tracking.check_installed(options.track)
    xla_flags.configure_xla(1)
    from experiments.recognition.clients.run import FederatedFinetuning
    from experiments.recognition.run import Finetuning
    from experiments.runs.folder import RunFolder, continuing_after_disk_errors

    with continuing_after_disk_errors():
        provenance = record_provenance("finetune", settings["seed"])
        out = options.out or default_folder(settings)
        folder = RunFolder(out, settings, provenance, ABSENT_SETTINGS, track=options.track)
        with contextlib.closing(folder):
            (FederatedFinetuning if is_federated(settings) else Finetuning)(settings, folder).run()

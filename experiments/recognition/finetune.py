"""`w2v-jax finetune`: speech recognition by CTC, or keyword spotting, on top of an encoder."""

import contextlib
import dataclasses
import math
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.recognition import recipes
from experiments.runs import tracking
from w2v_jax import config as model_config
from w2v_jax.text.rules import DOTLESS

MAX_SEED = 2**31

# Settings that run folders of older versions lack, and their values then.
ABSENT_SETTINGS = {
    "language": "", "task": "recognition", "column": "sentence", "pooling": None, "segments": None,
    "layers": None, "labels": None, "label_smoothing": None, "minutes": None,
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
# NewBob waits for validations that stall; a run of minutes rather follows a schedule of its length.
DEFAULTS_OF_MINUTES = {"head_optimizer": "adam", "schedule": "tri-stage"}
SELECTED_BY = {"recognition": ("wer", "cer", "loss"), "keywords": ("accuracy", "loss")}
# Options that have a meaning in one task alone.
OF_ONE_TASK = {
    "recognition": ("tokens", "pieces", "alphabet", "accents", "apostrophes", "language"),
    "keywords": ("column", "pooling", "segments", "layers", "labels", "label_smoothing"),
}
# Log-mel features have mean 0 over a clip: pooled in one part they say nothing, in six what follows what.
SEGMENTS = {"encoder": 1, "log-mel": 6}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneArguments:
    """Train a speech recognizer or a keyword spotter on an encoder and score it.

    Run the same command again to continue.

    example: w2v-jax finetune --init runs/ten-clients-tiny-fedavg --data corpora/en --out runs/asr
    """

    SHOWN_FIRST: ClassVar = (
        "task", "data", "labels", "train_minutes", "init",
        "freeze", "updates", "batch_seconds", "select_by", "out",
    )  # fmt: skip

    task: Literal["recognition", "keywords"] = "recognition"
    """recognition writes the words of a clip (CTC); keywords names the class of a clip, such as a word."""
    data: Path | None = None
    """A Common Voice locale's folder or its parent, with transcripts. Splits that it lacks are made: of
    disjoint speakers where there are ten (three for keywords), else of disjoint sentences. Default: a
    synthetic corpus."""
    out: Path | None = None
    """Run folder. Default: runs/finetune-<name of init>, or runs/keywords-<name of init>."""
    init: str = "scratch"
    """Encoder to start from: a run folder of w2v-jax pretrain (RUN@ROUND or RUN@best for another checkpoint),
    finetune or convert, hf:FOLDER with config.json and model.safetensors, or scratch for random
    parameters."""
    model: str | None = None
    """Model preset. Default: that of --init, or tiny from scratch."""
    features: Literal["encoder", "log-mel"] = "encoder"
    """Input of the head. log-mel is 80 log-mel bands in place of an encoder, as a baseline."""
    freeze: Literal["none", "feature-encoder", "encoder"] = "none"
    """Parts of the encoder that are never trained. feature-encoder freezes the convolutions, and encoder
    freezes all of it, as in a probe."""
    head_only_updates: int = 0
    """Number of first updates that train the head alone."""
    head_blocks: int | None = None
    """Number of blocks of linear, batch norm and leaky ReLU before the scores; 0 is a linear probe. Default:
    3, or 0 for keywords."""
    head_width: int | None = None
    """Width of the blocks. Default: the model's recipe."""
    pooling: Literal["mean", "attentive"] | None = None
    """For keywords, how the frames of a clip become one; attentive learns their weights. Default: mean."""
    segments: int | None = None
    """For keywords, number of equal parts of a clip that are pooled one by one. Default: 1, or 6 for log-mel
    features."""
    layers: Literal["last", "weighted"] | None = None
    """For keywords, frames of the encoder's last layer, or a trained mean of all its layers. Default:
    last."""
    label_smoothing: float | None = None
    """For keywords, share of a label that is spread over all classes, such as 0.1. Default: 0."""
    column: Literal["sentence", "client_id", "age", "gender", "accent"] = "sentence"
    """For keywords, column of the tables that holds the class of a clip."""
    labels: float | None = None
    """For keywords, percentage of the training clips of each class to use, such as 10. Of one seed, a smaller
    percentage is contained in a larger one. Default: all."""
    tokens: Literal["characters", "pieces"] = "characters"
    """Units of the text: characters, or SentencePiece unigrams trained on the training transcripts."""
    pieces: int = 1000
    """Number of SentencePiece unigrams, the blank included."""
    alphabet: str | None = None
    """Characters to recognise; the space comes by itself. Default: those of the training transcripts."""
    accents: Literal["keep", "fold"] = "keep"
    """fold writes è as e."""
    apostrophes: Literal["keep", "fold"] = "keep"
    """fold writes an apostrophe as a space."""
    language: str | None = None
    """Language of the transcripts, such as tr, for letter case. Default: the name of the data's folder if
    that language has a dotless i (tr, az), otherwise none."""
    train_minutes: float | None = None
    """Minutes of the training split to use at most; a smaller budget is contained in a larger one. Default:
    all."""
    max_seconds: float = recipes.MAX_FINE_TUNING_SECONDS
    """Longest training clip, in seconds; longer ones are left out, while dev and test keep every clip."""
    updates: int | None = None
    """Number of updates of the run. Default: the recipe's epochs, and at least 600 updates for keywords."""
    minutes: float | None = None
    """Minutes to train and validate for at most, in place of --updates. The pace is measured first, and the
    schedule is fitted to the updates that fit. Compiling, measuring and the scoring of test come on top. The
    same command continues a run that was stopped, for as many minutes again."""
    batch_seconds: float | None = None
    """Seconds of speech in a batch, at most. Default: the model's recipe."""
    encoder_learning_rate: float | None = None
    """Peak learning rate of Adam on the encoder. Default: the model's recipe."""
    head_learning_rate: float | None = None
    """Peak learning rate of the head's optimizer. Default: the model's recipe for adadelta, 1e-3 for
    adam."""
    head_optimizer: Literal["adadelta", "adam"] | None = None
    """Optimizer of the head. Default: adadelta, or adam for keywords and with --minutes."""
    schedule: Literal["newbob", "tri-stage"] | None = None
    """Schedule of the learning rates. newbob lowers them when the validation loss stalls; tri-stage raises,
    holds and lowers them over the run. Default: newbob, or tri-stage for keywords and with --minutes."""
    clip_norm: float = 5.0
    """Global norm that larger gradients are scaled down to."""
    dropout: float | None = None
    """Dropout in the encoder's layers. Default: the model's own."""
    augment: bool = True
    """Change the speed of training clips, and drop bands and chunks of them."""
    evaluate_every: int | None = None
    """Updates between validations. Default: those of an epoch, or more, so that a run has at most about fifty
    validations, or twenty for keywords."""
    select_by: Literal["wer", "cer", "loss", "accuracy"] | None = None
    """Score that chooses the best checkpoint; the other scores break ties. While no words are recognised yet,
    the loss says more than error rates. Default: wer, or accuracy for keywords."""
    shuffle_transcripts: bool = False
    """Give each training clip the transcript or class of another one, as a control that learns without
    listening."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 rounds the operands of matrix products; everything else stays fp32."""
    track: Literal["trackio", "wandb"] | None = None
    """Library that gets the run's scalars too, as TensorBoard has them, in the project w2v-jax. A run that
    continues stays one tracked run. Default: none."""
    seed: int = 0
    """Seed of everything random but the splits."""


def resolve(options: FinetuneArguments) -> dict[str, Any]:
    """Fill in defaults and check values: the settings that make a run what it is.

    Raises:
        UsageError: an unknown model, or a value out of range.
    """
    if options.model is not None:
        arguments.check_choice("--model", options.model, model_config.PRESETS)
    _check_task(options)
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
    defaults = DEFAULTS[options.task] | (DEFAULTS_OF_MINUTES if options.minutes is not None else {})
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
    from experiments.recognition.run import Finetuning
    from experiments.runs.folder import RunFolder, continuing_after_disk_errors

    with continuing_after_disk_errors():
        provenance = record_provenance("finetune", settings["seed"])
        out = options.out or default_folder(settings)
        folder = RunFolder(out, settings, provenance, ABSENT_SETTINGS, track=options.track)
        with contextlib.closing(folder):
            Finetuning(settings, folder).run()

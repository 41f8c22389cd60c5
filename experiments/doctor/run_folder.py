"""Read the curves of a run of `pretrain` or `finetune`: its folder, or its metrics.jsonl alone."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.doctor.curves import Curves, Spelling
from experiments.process.files import read_json
from experiments.runs.folder import DIAGNOSTICS, METRICS, read_config, read_metrics
from experiments.runs.lock import in_use
from experiments.runs.tasks import HELDOUT, Task, task_of
from w2v_jax.config import ModelConfig

Line = Mapping[str, Any]
PRETRAIN = Spelling(
    rate="--learning-rate",
    batch="--batch or --seconds",
    length="--rounds or --local-steps",
    masks="Give longer crops with --seconds, or take a --model whose mask_probability is 0.65.",
    codes="a lower --learning-rate, or with a higher diversity_weight of the model",
    clipping="clip_norm of the recipe",
    best="--keep-best heldout_loss, then RUN@best",
    start="--init with a run that has learnt",
)
FINETUNE = Spelling(
    rate="--encoder-learning-rate and --head-learning-rate",
    batch="--batch-seconds",
    length="--updates",
    masks="Give a larger --max-seconds.",
    codes="--label-smoothing",
    clipping="--clip-norm",
    best="best/, which holds the best validation; more data with --train-minutes; --dropout",
    start="--init with a pre-trained encoder",
)
# Name of a value by column of metrics.jsonl; the columns of the task's loss and codes are added.
COLUMNS = {
    "accuracy": "accuracy", "heldout_accuracy": "heldout_accuracy", "heldout_shuffled_accuracy": "control",
    "heldout_accuracy_standard_error": "standard_error", "chance_accuracy": "chance",
    "masked_share": "masked_share", "update_norm": "update_norm",
    "client_update_norm_mean": "client_update_norm", "effective_clients": "effective_clients",
    "clients": "clients", "skipped_clients": "skipped", "client_loss_min": "client_loss_min",
    "client_loss_max": "client_loss_max",
}  # fmt: skip
TUNING_COLUMNS = {
    "loss": "loss", "dev_loss": "heldout_loss", "accuracy": "accuracy", "dev_accuracy": "heldout_accuracy",
    "dev_wer": "wer", "dev_cer": "cer", "skipped_updates": "skipped_updates", "infeasible": "infeasible",
    "dev_empty_hypotheses": "empty", "head_learning_rate": "rate", "epoch": "epoch",
}  # fmt: skip
STOPPED = (
    "The run has stopped before its end, and its last message says why; the same command continues it "
    "unless training diverged."
)
# A null of these columns is a loss that was not finite; a null elsewhere says that nothing was measured.
LOSSES = ("loss", "heldout_loss")
# Columns by which a metrics.jsonl without its config.json is known.
WAV2VEC2_COLUMN, BEST_RQ_COLUMN, TUNING_COLUMN = "contrastive", "prob_perplexity", "dev_loss"
PRIVATE_COLUMN = "clipped_share"  # of a run of pretrain with --dp-clip-norm


def read(folder: Path) -> Curves:
    """Read a run folder.

    Raises:
        UserError: its config.json is not one of a run.
    """
    settings = read_config(folder)["settings"]
    curves = of_run(folder, settings, read_metrics(folder / METRICS))
    if curves.finished or in_use(folder):
        return curves
    return dataclasses.replace(curves, notes=(*curves.notes, STOPPED))


def of_run(folder: Path, settings: Mapping[str, Any], lines: Sequence[Line]) -> Curves:
    """Make the curves of a run from its settings and lines, which are at hand, and its smaller files."""
    if "preset" in settings:  # of pretrain alone
        looks = read_metrics(folder / DIAGNOSTICS)
        return pretraining(settings, lines, _held(folder / "untrained.json"), looks)
    return finetuning(settings, lines, _held(folder / "data.json"))


def read_lines(path: Path) -> Curves | None:
    """Read a metrics.jsonl that stands alone; None if its lines are of no known run.

    The shape of the model and the length of the run are then unknown: the defaults are assumed, in a note.
    """
    lines = read_metrics(path)
    known = {name for line in lines for name in line} if all(isinstance(x, dict) for x in lines) else set()
    if {"update", TUNING_COLUMN} <= known:
        task = "keywords" if "dev_accuracy" in known else "recognition"
        return finetuning({"task": task, "updates": None}, lines, {})
    if not {"round", BEST_RQ_COLUMN} <= known:
        return None
    objective = "wav2vec2" if WAV2VEC2_COLUMN in known else "best-rq"
    config = {"objective": objective, "front_end": "waveform"}
    if objective == "best-rq":
        config |= {"front_end": "log-mel", "conv_channels": [], "conv_kernels": [], "conv_strides": []}
    federated = any(line.get("clients") for line in lines)
    settings = {
        "model": None,
        "model_config": config,
        "preset": "federated" if federated else "centralised",
        "rounds": lines[-1]["round"],
        "clients": max((line.get("clients") or 0 for line in lines), default=0),
    }
    note = (
        "There is no config.json beside the file: codes, distractors and the length of the run are assumed."
    )
    return pretraining(settings, lines, {}, [], (note,))


def pretraining(
    settings: Mapping[str, Any],
    lines: Sequence[Line],
    untrained: Mapping[str, Any],
    looks: Sequence[Line] = (),
    notes: tuple[str, ...] = (),
) -> Curves:
    """Make the curves of a run of pretrain.

    Args:
        settings: of its config.json.
        lines: of its metrics.jsonl.
        untrained: content of its untrained.json; empty where that is missing.
        looks: lines of its diagnostics.jsonl.
        notes: what was assumed.
    """
    task = task_of(settings)
    config = ModelConfig.from_dict(dict(settings.get("model_config") or {}))
    federated = settings.get("preset") != "centralised"
    cosines = {line["round"]: _mean_cosine(line) for line in looks}
    points = [_round_point(line, task, federated, cosines) for line in lines]
    last = lines[-1] if lines else {}
    planned = None
    if lines and settings.get("rounds") and not notes:
        planned = settings["rounds"] * _updates(last) / max(1, last["round"])
    batch, crop = settings.get("batch_size"), settings.get("crop_seconds")
    return Curves(
        writer="w2v-jax pretrain",
        kind=task.objective,
        points=points,
        spelling=PRETRAIN,
        planned=planned,
        finished=planned is None or (bool(points) and points[-1]["step"] >= planned),
        size=settings.get("model"),
        chance_loss=math.log(
            config.target_entries if config.objective == "best-rq" else config.num_negatives + 1
        ),
        chance_excess=_projection_excess(config),
        first_loss=untrained.get(task.loss),
        first_accuracy=untrained.get("accuracy"),
        groups=task.groups,
        entries=task.entries,
        peak_rate=settings.get("learning_rate"),
        optimizer=settings.get("optimizer", "adamw"),
        federated=federated,
        clients=settings.get("clients") if federated else None,
        clipped_updates=settings.get("dp_clip_norm") is not None or any(PRIVATE_COLUMN in x for x in lines),
        seconds_an_update=batch * crop if batch and crop else None,
        notes=notes,
    )


def _projection_excess(config: ModelConfig) -> float:
    """Compute what random projections add to wav2vec 2.0's untrained loss, in nats.

    Cosines of random vectors have a variance of 1 / dimensions. Divided by the temperature they are logits,
    and the cross-entropy of normal logits exceeds that of equal ones by half of their variance.
    """
    if config.objective == "best-rq":
        return 0.0
    return 0.5 / (config.projection_dim * config.contrastive_temperature**2)


def _round_point(line: Line, task: Task, federated: bool, cosines: Mapping[int, float]) -> dict[str, float]:
    """Make the point of a round; a round that no client's update reached has no training loss."""
    columns = COLUMNS | {
        task.loss: "loss", task.heldout_loss: "heldout_loss", task.codes: "codes",
        HELDOUT + task.codes: "heldout_codes",
    }  # fmt: skip
    if not task.trains_codes:
        columns = columns | {"code_perplexity": "frame_codes"}
    point = _point(line, columns, _updates(line))
    asked = sum(line.get(name) or 0 for name in ("clients", "dropped_clients", "late_clients"))
    if federated:
        point["asked"] = asked
    if federated and (line.get("clients") or 0) <= (line.get("skipped_clients") or 0):
        point.pop("loss", None)
    if line["round"] in cosines:
        point["cosine"] = cosines[line["round"]]
    return point


def finetuning(settings: Mapping[str, Any], lines: Sequence[Line], data: Mapping[str, Any]) -> Curves:
    """Make the curves of a run of finetune.

    Args:
        settings: of its config.json.
        lines: of its metrics.jsonl.
        data: content of its data.json; empty where that is missing.
    """
    keywords = settings.get("task") == "keywords"
    planned = settings.get("updates") or data.get("updates")
    points = [_point(line, TUNING_COLUMNS, line["update"]) for line in lines]
    classes = data.get("train", {}).get("sentences") if keywords else data.get("tokens")
    unknown = data.get("characters_without_token") or {}
    length = "--rounds or --local-steps" if settings.get("local_steps") else FINETUNE.length
    return Curves(
        writer="w2v-jax finetune",
        kind="keywords" if keywords else "ctc",
        points=points,
        spelling=dataclasses.replace(FINETUNE, length=length),
        planned=planned,
        finished=planned is None or (bool(points) and points[-1]["step"] >= planned),
        chance_loss=math.log(classes) if keywords and classes else None,
        optimizer=settings.get("head_optimizer") or "adadelta",
        train_clips=data.get("train", {}).get("clips"),
        heldout_clips=data.get("dev", {}).get("clips"),
        classes=classes,
        unknown_characters={split: "".join(sorted(held)) for split, held in unknown.items() if held},
    )


def _updates(line: Line) -> float:
    """Give the updates that a model went through; lines of the oldest runs count rounds alone."""
    return line.get("updates", line["round"])


def _point(line: Line, columns: Mapping[str, str], step: float) -> dict[str, float]:
    point: dict[str, float] = {"step": step}
    for column, name in columns.items():
        if column in line and (line[column] is not None or name in LOSSES):
            point[name] = math.nan if line[column] is None else float(line[column])
    return point


def _mean_cosine(look: Line) -> float:
    """Average the cosine of each client's update to the others' mean, of a line of diagnostics.jsonl."""
    held = [client["cosine_to_others"] for client in look["clients"]]
    held = [value for value in held if value is not None]
    return sum(held) / len(held) if held else math.nan


def _held(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}

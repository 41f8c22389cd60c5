"""The task of a run: which columns of metrics.jsonl measure it, and how readers call them. Imports no jax."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.process.files import read_json
from experiments.runs.best_round import COLUMNS, best_by_column
from experiments.runs.folder import METRICS, read_config, read_metrics
from experiments.runs.metric_columns import pace_text, with_pace
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig, ObjectiveName
from w2v_jax.errors import UserError

HELDOUT = "heldout_"
# Columns that follow from others; `with_shares` computes them.
OVER_CONTROL, CODE_SHARE = "accuracy_over_control", "code_share"
PROBE = "probe_accuracy"  # of labelled clips, in the lines of runs that are probed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """An objective as readers see it: what it predicts, the columns that measure it, and their names.

    Attributes:
        loss: column of the task's own loss, in nats per masked frame.
        codes: column of the perplexity that falls when a model collapses, summed over groups or codebooks.
        groups: groups or codebooks: the perplexity of a model that uses one entry of each.
        entries: all entries of all groups or codebooks: the largest perplexity.
        frame_ms: length of a frame.
        name: the objective for readers.
        loss_name, codes_name: names of the two columns.
        learns: what the model learns, as the end of a sentence.
        trains_codes: whether training changes the codes of frames.
        hits: what an accurate model does, as a predicate.
        accuracy_unit: what the accuracy is a share of.
        chance: what `chance_accuracy` is the accuracy of.
        warning: what to say of a model that collapses.
        about_codes: how to read the curve of codes.
        best_by: column by which a round is the best: that of --keep-best, or the task's held-out loss.
    """

    objective: ObjectiveName
    loss: str
    codes: str
    groups: int
    entries: int
    frame_ms: float
    name: str
    loss_name: str
    codes_name: str
    learns: str
    trains_codes: bool
    hits: str
    accuracy_unit: str
    chance: str
    warning: str
    about_codes: str
    best_by: str = ""

    @property
    def heldout_loss(self) -> str:
        """The column of the task's loss on held-out speakers."""
        return HELDOUT + self.loss

    def collapses(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a model uses fewer than two entries of each group or codebook on average."""
        found = values.get(self.codes)
        return found is not None and found < 2 * self.groups


def _wav2vec2(config: ModelConfig, frame_ms: float) -> Task:
    groups, entries = config.codebook_groups, config.num_codes
    return Task(
        objective="wav2vec2",
        loss="contrastive",
        codes="code_perplexity",
        groups=groups,
        entries=entries,
        frame_ms=frame_ms,
        name="wav2vec 2.0",
        loss_name="contrastive loss",
        codes_name="codes in use",
        learns=f"to pick the right content of each hidden frame of {frame_ms:g} ms among up to "
        f"{config.num_negatives} distractors from the same clip",
        trains_codes=True,
        hits="picks the right frame",
        accuracy_unit="share of masked frames",
        chance="guessing",
        warning="CODEBOOK COLLAPSING: nearly all frames share a code",
        about_codes="While few codes are in use, distractors often share the right code and are left out, so "
        f"that guessing scores high too. A perplexity near {groups} of {entries} would mean collapse. "
        "Untrained codes are many but arbitrary: usually their number falls first and then rises.",
    )


def _best_rq(config: ModelConfig, frame_ms: float) -> Task:
    groups, entries = config.target_codebooks, config.target_codebooks * config.target_entries
    return Task(
        objective="best-rq",
        loss="loss",
        codes="prob_perplexity",
        groups=groups,
        entries=entries,
        frame_ms=frame_ms,
        name="BEST-RQ",
        loss_name="cross-entropy",
        codes_name="codes predicted",
        learns=f"to name the codes of each hidden frame of {frame_ms:g} ms in {groups} fixed random "
        f"codebooks of {config.target_entries} entries, which quantise its log-mel spectrum",
        trains_codes=False,
        hits="names the right code",
        accuracy_unit="share of masked frames and codebooks",
        chance="always naming the most frequent code",
        warning="PREDICTIONS COLLAPSING: the model names nearly the same code for all frames",
        about_codes="The codes are fixed, so that they cannot collapse; the model's probabilities can. Their "
        f"perplexity, averaged over frames, would then be near {groups} of {entries}. A model that learns "
        "comes near the perplexity of the frames' own codes, which the dashed line shows.",
    )


def task_of(settings: Mapping[str, Any]) -> Task:
    """Describe the task of a run from its settings; those of older runs name no objective: wav2vec 2.0."""
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    held = settings.get("model_config") or {}
    config = ModelConfig.from_dict({name: value for name, value in held.items() if name in fields})
    frame_ms = 1000 * config.frame_samples / SAMPLE_RATE_HZ
    task = (_best_rq if config.objective == "best-rq" else _wav2vec2)(config, frame_ms)
    criterion = settings.get("keep_best")
    best_by = COLUMNS[criterion][0] if criterion else task.heldout_loss
    return dataclasses.replace(task, best_by=best_by)


def with_shares(values: dict[str, Any], task: Task) -> dict[str, Any]:
    """Add to a line, or to an evaluation, the columns that follow from others.

    `code_share` is the perplexity of the task's codes as a share of all entries, and `accuracy_over_control`
    the accuracy as a multiple of the same model's with its context shuffled (evaluations alone); both also as
    `heldout_*`. `audio_seconds_a_second` is the speech that a second of training heard. A column whose parts
    are missing, null or zero is left out.
    """
    found = with_pace(values)
    for prefix in ("", HELDOUT):
        if (codes := values.get(prefix + task.codes)) is not None:
            found[prefix + CODE_SHARE] = codes / task.entries
        accuracy, control = (values.get(prefix + name) for name in ("accuracy", "shuffled_accuracy"))
        if accuracy is not None and control:
            found[prefix + OVER_CONTROL] = accuracy / control
    return found


def best_line(lines: Iterable[Mapping[str, Any]], task: Task) -> Mapping[str, Any] | None:
    """Find the first line that is best by `task.best_by`, a loss or an accuracy; None without values."""
    return best_by_column(lines, task.best_by, 1 if task.best_by.endswith("accuracy") else -1)


def slot_seconds(line: Mapping[str, Any]) -> float:
    """Compute the seconds of audio that a round computed, padding included."""
    seconds, padded = line.get("audio_seconds") or 0.0, line.get("padded_share") or 0.0
    return seconds / (1.0 - padded) if padded < 1.0 else 0.0


def speech_heard(lines: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Add up what rounds heard: (seconds of speech, with repeats; padding's share of the computed audio)."""
    speech = sum(line.get("audio_seconds") or 0.0 for line in lines)
    slots = sum(map(slot_seconds, lines))
    return speech, max(0.0, 1.0 - speech / slots) if slots else 0.0


def read_task_run(folder: Path) -> tuple[Task, list[dict[str, Any]], dict[str, Any]]:
    """Read a run of pretrain: its task, its lines and its untrained evaluation, both with their shares."""
    task = task_of(read_config(folder)["settings"])
    lines = [with_shares(line, task) for line in read_metrics(folder / METRICS)]
    return task, lines, with_shares(read_json(folder / "untrained.json"), task)


def require_objective(folder: Path, objective: ObjectiveName, who: str) -> None:
    """Refuse a run of another objective.

    Args:
        who: the command that reads the run.

    Raises:
        UserError: the run has another objective.
    """
    if (found := task_of(read_config(folder)["settings"]).objective) != objective:
        raise UserError(f"{folder} is a run of {found}: {who} reads runs of {objective} alone")


def round_text(line: Mapping[str, Any], task: Task, healthy: Mapping[str, str] | None = None) -> str:
    """Describe a round in a line.

    Args:
        line: its line of metrics.jsonl.
        task: the task of the run.
        healthy: the ranges of healthy runs, in words: `codes` and `accuracy`.
    """
    line = with_shares(dict(line), task)
    good = {name: f"; healthy: {words}" for name, words in (healthy or {}).items()}
    parts = [f"loss {line['loss']:.3f}"]
    if task.loss != "loss":
        parts.append(f"{task.loss} {line[task.loss]:.3f}")
    share = f"{100 * line[CODE_SHARE]:.0f} % of all{good.get('codes', '')}"
    parts.append(f"{task.codes_name} {line[task.codes]:.0f} ({share})")
    if line.get("heldout_accuracy") is not None:
        parts.append(
            f"held-out {task.loss} {line[task.heldout_loss]:.3f} accuracy {line['heldout_accuracy']:.3f} "
            f"({beside_accuracy(line)}{good.get('accuracy', '')})"
        )
    if line.get(PROBE) is not None:
        parts.append(f"probe accuracy {line[PROBE]:.3f}")
    if pace := pace_text(line):
        parts.append(", ".join(pace))
    if line["clients"] == 0 and (line.get("dropped_clients") or 0) + (line.get("late_clients") or 0):
        parts = ["no client answered"]
    elif task.collapses(line):
        parts.append(task.warning)
    if line["skipped_clients"]:
        parts.append(f"{line['skipped_clients']} clients left out")
    return "  ".join(parts)


def beside_accuracy(line: Mapping[str, Any]) -> str:
    """Give what a held-out accuracy is compared with: chance, and its multiple of the control."""
    parts = []
    if (chance := line.get("chance_accuracy")) is not None:
        parts.append(f"chance {chance:.3f}")
    if (ratio := line.get(HELDOUT + OVER_CONTROL)) is not None:
        parts.append(f"{ratio:.2f} x control")
    return ", ".join(parts)

"""Find out which tool wrote a log, and read it."""

from pathlib import Path

from experiments.doctor import fairseq_log, run_folder, speechbrain_log, transformers_log
from experiments.doctor.curves import Curves
from experiments.options.arguments import check_exists
from experiments.options.errors import UsageError
from experiments.runs.folder import METRICS, read_config

FORMATS = (
    "a run folder of w2v-jax pretrain or finetune, its metrics.jsonl, a log of fairseq (JSON or simple), "
    "transformers' trainer_state.json or SpeechBrain's train_log.txt"
)
# Files of other tools by which a folder is known, the usual first.
FOREIGN_FILES = (transformers_log.FILE, "train_log.txt", "train_stage_log.txt", "hydra_train.log")
READERS = (transformers_log.parse, speechbrain_log.parse, fairseq_log.parse)


def read(path: Path) -> Curves:
    """Read the curves of a run from its folder or its log.

    Raises:
        UsageError: there is no such file, or no reader understands it.
        UserError: a config.json that no command of w2v-jax wrote.
    """
    check_exists("RUN", path, FORMATS)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".jsonl":
        if (path.parent / "config.json").exists() and path.name == METRICS:
            return run_folder.read(path.parent)
        if (curves := run_folder.read_lines(path)) is not None:
            return curves
    text = path.read_text(encoding="utf-8", errors="replace")
    found = next((curves for parse in READERS if (curves := parse(text)) is not None), None)
    if found is None or not found.points:
        raise UsageError(f"{path} is not understood: give {FORMATS}")
    return found


def _folder(folder: Path) -> Curves:
    for name in FOREIGN_FILES:
        if (folder / name).exists():
            return read(folder / name)
    if not (folder / "config.json").exists():
        raise UsageError(f"{folder} is no run: give {FORMATS}")
    if not {"rounds", "updates"} & read_config(folder)["settings"].keys():
        raise UsageError(f"{folder / 'config.json'} was written by another command: give {FORMATS}")
    return run_folder.read(folder)

"""Open a recognizer's run folder: one of `w2v-jax finetune`, or one that `convert` made of a CTC model."""

from pathlib import Path
from typing import NamedTuple

import jax

from experiments.process.files import read_json
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.errors import UserError
from w2v_jax.objective.pretraining import Objective, Parameters
from w2v_jax.recognition.ctc import Recognizer, RecognizerConfig, recognizer
from w2v_jax.text.rules import TextRules
from w2v_jax.text.storage import load_tokenizer
from w2v_jax.text.tokenizers import Tokenizer

SETTINGS, BEST = "recognizer.json", "best"


class RecognizerFolder(NamedTuple):
    """The recognizer of a run folder; `best_checkpoint` reads its arrays.

    Attributes:
        path: the folder.
        named: its name in messages.
        config: the recognizer's shape.
        tokenizer, rules: the tokenizer and the text rules of its transcripts.
        recognizer: its functions.
    """

    path: Path
    named: str
    config: RecognizerConfig
    tokenizer: Tokenizer
    rules: TextRules
    recognizer: Recognizer

    def best_checkpoint(self) -> tuple[Parameters, Parameters]:
        """Read (parameters, statistics) of the checkpoint that validation chose.

        Raises:
            UserError: there is none yet, or its arrays do not fit.
        """
        return best_checkpoint(self.path, self.named, self.recognizer.objective, SETTINGS)


def best_checkpoint(
    run: Path, named: str, objective: Objective, settings_file: str
) -> tuple[Parameters, Parameters]:
    """Read (parameters, statistics) of the checkpoint of a fine-tuning run that validation chose.

    Args:
        run: the run's folder.
        named: its name in messages.
        objective: the objective of its head and encoder.
        settings_file: the file in the folder that gives their shapes.

    Raises:
        UserError: there is none yet, or its arrays do not fit.
    """
    folder = run / BEST
    reader = Checkpoints(folder) if folder.is_dir() else None
    latest = reader.latest() if reader else None
    if reader is None or latest is None:
        raise UserError(f"{named} has no validated checkpoint yet: let its fine-tuning go on first")
    like = jax.eval_shape(objective.init, jax.random.key(0))
    try:
        held = reader.restore(latest, {"parameters": like[0], "statistics": like[1]})
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{named}: its checkpoint is of another architecture than its {settings_file} says"
        ) from error
    finally:
        reader.close()
    return held["parameters"], held["statistics"]


def is_recognizer(folder: Path) -> bool:
    """Tell whether a run folder holds a recognizer."""
    return (folder / SETTINGS).is_file()


def open_recognizer(folder: Path, named: str | None = None) -> RecognizerFolder:
    """Open a run folder's recognizer.

    Args:
        folder: the run's folder.
        named: its name in messages: its option and path, by default the path.

    Raises:
        UserError: it holds no recognizer.
    """
    named = named or str(folder)
    if not is_recognizer(folder):
        raise UserError(f"{named} is not a run folder of w2v-jax finetune (no {SETTINGS})")
    try:
        config = RecognizerConfig.from_dict(read_json(folder / SETTINGS))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SETTINGS} is not what w2v-jax finetune writes") from error
    tokenizer, rules = load_tokenizer(folder)
    return RecognizerFolder(folder, named, config, tokenizer, rules, recognizer(config))

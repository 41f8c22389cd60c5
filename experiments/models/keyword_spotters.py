"""Open the folder of a keyword run of `w2v-jax finetune`."""

from pathlib import Path
from typing import NamedTuple

from experiments.models.recognizers import best_checkpoint
from experiments.process.files import read_json
from w2v_jax.errors import UserError
from w2v_jax.objective.pretraining import Parameters
from w2v_jax.recognition.keywords import KeywordSpotter, KeywordSpotterConfig, keyword_spotter

SETTINGS = "keywords.json"


class KeywordFolder(NamedTuple):
    """The keyword spotter of a run folder; `best_checkpoint` reads its arrays.

    Attributes:
        path: the folder.
        named: its name in messages.
        config: the spotter's shape.
        classes: the name of each score.
        spotter: its functions.
    """

    path: Path
    named: str
    config: KeywordSpotterConfig
    classes: list[str]
    spotter: KeywordSpotter

    def best_checkpoint(self) -> tuple[Parameters, Parameters]:
        """Read (parameters, statistics) of the checkpoint that validation chose.

        Raises:
            UserError: there is none yet, or its arrays do not fit.
        """
        return best_checkpoint(self.path, self.named, self.spotter.objective, SETTINGS)


def is_keyword_spotter(folder: Path) -> bool:
    """Tell whether a run folder holds a keyword spotter."""
    return (folder / SETTINGS).is_file()


def open_keyword_spotter(folder: Path, named: str | None = None) -> KeywordFolder:
    """Open a run folder's keyword spotter.

    Args:
        folder: the run's folder.
        named: its name in messages: its option and path, by default the path.

    Raises:
        UserError: its keywords.json is damaged.
    """
    try:
        held = read_json(folder / SETTINGS)
        classes = [str(name) for name in held.pop("classes")]
        config = KeywordSpotterConfig.from_dict(held)
        if len(classes) != config.head.num_classes:
            raise ValueError(f"{len(classes)} classes for {config.head.num_classes} scores")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / SETTINGS} is not what w2v-jax finetune writes") from error
    return KeywordFolder(folder, named or str(folder), config, classes, keyword_spotter(config))

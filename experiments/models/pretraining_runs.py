"""Open a pre-training run's folder: one of `w2v-jax pretrain`, or one that `convert` made of another
model."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.runs.best_round import BEST
from experiments.runs.folder import read_config
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import TRAINING_SETTINGS, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop import stated
from w2v_jax.interop.foreign_files import refuse_outer_folder, refuse_pointer
from w2v_jax.interop.stated import Stated
from w2v_jax.objective.pretraining import Parameters

OPTION = "--init "
ANY_MODEL = "a run folder of w2v-jax pretrain or finetune, a Hugging Face folder, or a .pt of fairseq"
CHECKPOINTS = "checkpoints"
CONVERTED = "converted"  # preset of a run that convert made
ORIGINS = "settings_from"  # of a converted run's settings: where each training setting comes from


class Run(NamedTuple):
    """A pre-training run, or a folder that `w2v-jax convert` made of another project's model.

    Attributes:
        init: the text that named it.
        folder: its folder.
        config: the configuration of its model.
        settings: the settings in its config.json.
        round_index: the round of the checkpoint that was asked for.
        option: the option that named it, for messages.
        kept_in: the folder of the checkpoint, in the run's.
    """

    init: str
    folder: Path
    config: ModelConfig
    settings: dict[str, Any]
    round_index: int
    option: str = OPTION
    kept_in: str = CHECKPOINTS

    def parameters(self, like: Parameters) -> Parameters:
        """Read some of its parameters (NumPy), with the shapes of `like`.

        Raises:
            UserError: its arrays have other names or shapes.
        """
        reader = Checkpoints(self.folder / self.kept_in)
        try:
            found = reader.restore_part(self.round_index, {"parameters": like})["parameters"]
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{self.option}{self.folder}: its checkpoint is of another architecture than its "
                "config.json says"
            ) from error
        finally:
            reader.close()
        return jax.device_get(found)


def open_run(init: str, option: str = OPTION) -> Run:
    """Open the run, at the round, that RUN, RUN@ROUND or RUN@best names.

    Args:
        init: RUN, RUN@ROUND or RUN@best.
        option: written before it in messages.

    Raises:
        UserError: there is no such run, or it keeps no such checkpoint.
    """
    folder, settings, config, at_round = run_settings(init, option)
    if at_round == BEST:
        found = sorted(int(path.name) for path in (folder / BEST).glob("[0-9]*") if path.name.isdecimal())
        if not found:
            raise UserError(
                f"{option}{init}: {folder} keeps no best checkpoint: its pre-training needs --keep-best, and "
                f"a round that was evaluated; give {folder} for its last round"
            )
        return Run(init, folder, config, settings, found[-1], option, BEST)
    reader = Checkpoints(folder / CHECKPOINTS) if (folder / CHECKPOINTS).is_dir() else None
    latest = reader.latest() if reader else None
    if reader is None or latest is None:
        raise UserError(f"{option}{folder} has no checkpoint yet: let its pre-training go on first")
    if at_round is not None and at_round not in reader.rounds():
        kept = ", ".join(map(str, reader.rounds()))
        raise UserError(f"{option}{init}: {folder} keeps no checkpoint of round {at_round}, only of {kept}")
    reader.close()
    chosen = at_round if isinstance(at_round, int) else latest
    return Run(init, folder, config, settings, chosen, option)


def run_settings(
    init: str, option: str = OPTION
) -> tuple[Path, dict[str, Any], ModelConfig, int | str | None]:
    """Read folder, settings and model of a run, and the round that was asked for, a number or "best".

    Raises:
        UserError: there is no such run.
    """
    name, _, wanted = init.rpartition("@")
    folder, at_round = Path(init), None
    if name and (wanted.isdecimal() or wanted == BEST) and not (folder / "config.json").is_file():
        folder, at_round = Path(name), BEST if wanted == BEST else int(wanted)
    if not (folder / "config.json").is_file():
        refuse_pointer(folder / "config.json")
        refuse_outer_folder(folder)
        raise UserError(
            f"{option}{folder}: no such pre-training run (no config.json); give "
            + ("scratch, a run folder of w2v-jax pretrain, or hf:FOLDER" if option else ANY_MODEL)
        )
    settings = read_config(folder)["settings"]
    if not {"model_config", "preset", "model"} <= settings.keys():
        raise UserError(f"{option}{folder} is not a run of w2v-jax pretrain: give one that is")
    try:
        config = ModelConfig.from_dict(settings["model_config"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{option}{folder}: its config.json has settings that this version lacks") from error
    return folder, settings, config, at_round


def stated_by(folder: Path, settings: dict[str, Any], config: ModelConfig) -> Stated:
    """Tell what a run folder states: all training settings except those that convert took from a preset.

    Folders of older versions of convert do not tell which they took. There, the base model's value stood in
    for a setting that the checkpoint did not state; such a value counts as not stated.
    """
    origins = settings.get(ORIGINS)
    if origins is None:
        told = [
            name
            for name in TRAINING_SETTINGS
            if settings["preset"] != CONVERTED or getattr(config, name) != getattr(ModelConfig, name)
        ]
        origins = dict.fromkeys(told, str(folder))
    return stated.of_config(vars(config), origins)

"""Where a fine-tuning run's encoder comes from: nowhere, a pre-training run, or a Hugging Face folder."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.models.recognizers import is_recognizer, open_recognizer
from experiments.options.arguments import blaming
from experiments.runs.folder import read_config
from w2v_jax import config as model_config
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_folder import abstract, kind_of, read_encoder, read_model
from w2v_jax.interop.huggingface_folder import read_config as read_config_of_folder
from w2v_jax.interop.huggingface_names import PRE_TRAINING
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import Parameters, bind

SCRATCH, HUGGING_FACE = "scratch", "hf:"
OPTION = "--init "
ANY_MODEL = "a run folder of w2v-jax pretrain or finetune, a Hugging Face folder, or a .pt of fairseq"


@dataclasses.dataclass(frozen=True)
class Source:
    """An encoder before fine-tuning.

    Attributes:
        config: its shape.
        parameters: None for a fresh one.
        description: what a report says of it.
    """

    config: ModelConfig
    parameters: Parameters | None
    description: dict[str, Any]


def load(init: str, model: str | None) -> Source:
    """The encoder that `--init` names.

    Args:
        init: scratch, a run folder of `w2v-jax pretrain` (RUN@ROUND for an earlier checkpoint), `finetune` or
            `convert`, or hf:FOLDER.
        model: a preset; with anything but scratch it must be the checkpoint's architecture.

    Raises:
        UserError: no such thing, or a checkpoint of another architecture.
    """
    if init == SCRATCH:
        name = model or "tiny"
        return Source(model_config.PRESETS[name], None, {"init": SCRATCH, "model": name})
    if init.startswith(HUGGING_FACE):
        folder = Path(init.removeprefix(HUGGING_FACE))
        with blaming("--init"):
            config, parameters = read_encoder(folder)
        description = {"init": init, "model": "Hugging Face"}
    else:
        config, parameters, description = _from_run(init)
    if model is not None:
        check_shape(config, model_config.PRESETS[model], init, model)
    _check_arrays(parameters, config, init)
    return Source(config, parameters, description | {"parameters_sha256": fingerprint(parameters)})


def _from_run(init: str) -> tuple[ModelConfig, Parameters, dict[str, Any]]:
    if is_recognizer(Path(init)):
        opened = open_recognizer(Path(init), f"{OPTION}{init}")
        if opened.config.features != "encoder":
            raise UserError(f"{OPTION}{init} is a recognizer on {opened.config.features}, without an encoder")
        held, _ = jax.device_get(opened.best_checkpoint())
        return opened.config.model, held["encoder"], {"init": init, "model": "recognizer"}
    run = open_run(init)
    make, _ = bind(lambda key: Encoder(run.config, key))
    parameters = run.parameters(jax.eval_shape(make, jax.random.key(0)))
    description = {
        "init": init,
        "model": run.settings["model"],
        "pretraining": {
            name: run.settings.get(name)
            for name in ("preset", "aggregation", "temperature", "rounds", "seed", "data", "crop_seconds")
        },
        "round": run.round_index,
    }
    return run.config, parameters, description


class Run(NamedTuple):
    """A pre-training run, or what `w2v-jax convert` made of another's model.

    Attributes:
        init: how it was named.
        folder: its folder.
        config: of its model.
        settings: of its config.json.
        round_index: of the checkpoint that was asked for.
        option: that named it, for messages.
    """

    init: str
    folder: Path
    config: ModelConfig
    settings: dict[str, Any]
    round_index: int
    option: str = OPTION

    def parameters(self, like: Parameters) -> Parameters:
        """Some of its parameters (NumPy), with the shapes of `like`.

        Raises:
            UserError: it has others.
        """
        reader = Checkpoints(self.folder / "checkpoints")
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
    """The run, and the round, that RUN or RUN@ROUND names.

    Args:
        init: RUN or RUN@ROUND.
        option: before it in messages.

    Raises:
        UserError: it is none, or keeps no such checkpoint.
    """
    folder, settings, config, at_round = _run_settings(init, option)
    reader = Checkpoints(folder / "checkpoints") if (folder / "checkpoints").is_dir() else None
    latest = reader.latest() if reader else None
    if reader is None or latest is None:
        raise UserError(f"{option}{folder} has no checkpoint yet: let its pre-training go on first")
    if at_round is not None and at_round not in reader.rounds():
        kept = ", ".join(map(str, reader.rounds()))
        raise UserError(f"{option}{init}: {folder} keeps no checkpoint of round {at_round}, only of {kept}")
    reader.close()
    return Run(init, folder, config, settings, latest if at_round is None else at_round, option)


def _run_settings(init: str, option: str = OPTION) -> tuple[Path, dict[str, Any], ModelConfig, int | None]:
    """Folder, settings and model of a run, and the round that was asked for."""
    name, _, wanted = init.rpartition("@")
    folder, at_round = (Path(name), int(wanted)) if name and wanted.isdecimal() else (Path(init), None)
    if not (folder / "config.json").is_file():
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


def pretraining_config(init: str) -> ModelConfig:
    """The configuration of a pre-training model; its arrays are not looked at, nor is jax started.

    Raises:
        UserError: no such model, or one without the quantizer.
    """
    if init.startswith(HUGGING_FACE):
        folder = Path(init.removeprefix(HUGGING_FACE))
        with blaming("--init"):
            config, kind = read_config_of_folder(folder), kind_of(folder)
    else:
        _, settings, config, _ = _run_settings(init)
        kind = settings.get("kind", PRE_TRAINING)
    if kind != PRE_TRAINING:
        raise UserError(
            f"--init {init} is a {kind}, without the quantizer that pre-training needs: give a {PRE_TRAINING}"
        )
    return config


def load_pretraining(init: str) -> Parameters:
    """A whole pre-training model, quantizer and projections too (NumPy).

    Raises:
        UserError: no such model, or its arrays do not fit.
    """
    config = pretraining_config(init)
    if init.startswith(HUGGING_FACE):
        return read_model(Path(init.removeprefix(HUGGING_FACE))).parameters
    return open_run(init).parameters(abstract(config, PRE_TRAINING, {}))


SHAPES = (
    "conv_channels", "conv_kernels", "conv_strides", "conv_bias", "feature_norm", "hidden_dim",
    "num_layers", "num_heads", "feed_forward_dim", "positional_kernel", "positional_groups", "pre_norm",
)  # fmt: skip


def same_shape(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two encoders have parameters of the same shapes."""
    return all(getattr(one, name) == getattr(other, name) for name in SHAPES)


def check_shape(held: ModelConfig, wanted: ModelConfig, init: str, model: str) -> None:
    """The fields that give parameters their shapes must agree.

    Raises:
        UserError: they do not.
    """
    for name in SHAPES:
        here, there = getattr(wanted, name), getattr(held, name)
        if here != there:
            raise UserError(
                f"--init {init} is a checkpoint of another architecture than --model {model}: {name} is "
                f"{there} there and {here} here; leave --model out to take the checkpoint's"
            )


def _check_arrays(parameters: Parameters, config: ModelConfig, init: str) -> None:
    """Every array has the shape that the configuration gives it."""
    make, _ = bind(lambda key: Encoder(config, key))
    expected = dict(jax.tree_util.tree_leaves_with_path(jax.eval_shape(make, jax.random.key(0))))
    for path, value in jax.tree_util.tree_leaves_with_path(parameters):
        shape = expected[path].shape
        if value.shape != shape:
            raise UserError(
                f"--init {init} is a checkpoint of another architecture than its config.json: "
                f"{jax.tree_util.keystr(path)} has shape {value.shape}, expected {shape}"
            )


def fingerprint(parameters: Parameters) -> str:
    """A fingerprint, so that a run that continues is known to have begun from the same encoder."""
    digest = hashlib.sha256()
    for path, value in sorted(jax.tree_util.tree_leaves_with_path(parameters), key=lambda item: str(item[0])):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()

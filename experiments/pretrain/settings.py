"""The settings of a pre-training run: defaults filled in, values checked. Imports no jax."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.pretrain import recipes
from experiments.pretrain.options import CENTRALISED, PretrainArguments, check
from experiments.pretrain.recipes import Aggregation, Corruption, Partition, ServerOptimizer, SkewedColumn
from experiments.runs.best_round import Criterion
from w2v_jax import config as model_config
from w2v_jax import memory_methods

# Options that say how this process works; all others are settings of the run.
NO_SETTINGS = ("out", "distributed", "memory_budget", "objective", "track")
# The local steps over which a client's loss is taken that loss weighting uses. See docs/reference.
LossWindow = Literal["round", "last-epoch"]
# Settings that the config.json of older runs lacks, and what those runs did.
ABSENT_SETTINGS = {
    "corruption": "none",
    "corrupted_clients": 0,
    "diagnose_every": None,
    "keep_checkpoints": 2,
    "server_optimizer": "fedavg",
    "server_learning_rate": 1.0,
    "proximal": 0.0,
    "algorithm": "fedavg",
    "algorithm_options": (),
    "client_states": "memory",
    "max_update_norm": None,
    "client_dropout": 0.0,
    "overshoot": 1.0,
    "speed_spread": 0.0,
    "deadline_steps": None,
    "dp_clip_norm": None,
    "dp_clipping": "whole",
    "dp_noise_multiplier": None,
    "dp_epsilon": None,
    "dp_delta": 1e-5,
    "shards": 1,
    "method": "plain",
    "optimizer": "adamw",
    "init": None,
    "loss_window": "last-epoch",
    "probe_every": None,
    "probe_data": None,
    "keep_best": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run, as its config.json has them; options of `w2v-jax pretrain` where not said.

    Attributes:
        model: the preset whose recipe is used.
        clients: None where every speaker is a client.
        corrupted_clients: 0 without corruption.
        crop_seconds: None until the corpus is read, where no length was given.
        local_steps: None where local work is in epochs.
        warmup_share: share of the run's updates in which the learning rate rises.
        model_config: fields of ModelConfig. Presets may change between versions; a run that continues
            must not.
        loss_window: the local steps over which a client's loss is taken: all of the round, or those of the
            client's last local epoch.
    """

    data: str | None
    model: str
    init: str | None
    preset: str
    rounds: int
    algorithm: str
    algorithm_options: Sequence[str]
    client_states: Literal["memory", "disk"]
    aggregation: Aggregation
    temperature: float
    server_optimizer: ServerOptimizer
    server_learning_rate: float
    proximal: float
    clients: int | None
    clients_per_round: int
    local_steps: int | None
    local_epochs: int | None
    batch_size: int
    crop_seconds: float | None
    optimizer: model_config.OptimizerName
    learning_rate: float
    heldout_speakers: int | None
    partition: Partition
    dirichlet_alpha: float
    dirichlet_column: SkewedColumn
    split: str
    exclude_speakers_of: Sequence[str]
    corruption: Corruption
    corrupted_clients: int
    client_dropout: float
    overshoot: float
    speed_spread: float
    deadline_steps: float | None
    max_update_norm: float | None
    dp_clip_norm: float | None
    dp_clipping: Literal["whole", "layer"]
    dp_noise_multiplier: float | None
    dp_epsilon: float | None
    dp_delta: float
    precision: Literal["fp32", "bf16"]
    method: str
    masked_group_norm: bool
    evaluate_every: int
    diagnose_every: int | None
    probe_every: int | None
    probe_data: str | None
    keep_best: Criterion | None
    checkpoint_every: int
    keep_checkpoints: int
    lanes: int | None
    chunk: int | None
    shards: int
    seed: int
    warmup_share: float
    clip_norm: float
    weight_decay: float
    model_config: Mapping[str, Any]
    loss_window: LossWindow

    @property
    def centralised(self) -> bool:
        """Tell whether one model is trained on everything, without clients."""
        return self.preset == CENTRALISED

    @property
    def crop_samples(self) -> int:
        """Samples of a training crop, once it is known."""
        assert self.crop_seconds is not None
        return round(self.crop_seconds * model_config.SAMPLE_RATE_HZ)

    def is_due(self, every: int | None, finished: int) -> bool:
        """Tell whether work of every `every` rounds is due after round `finished`; after the last it is."""
        return every is not None and (finished % every == 0 or finished == self.rounds)

    def check(self) -> None:
        """Check the settings against one another.

        Raises:
            UsageError: two of them cannot be combined.
        """
        if self.clients is not None:
            for name in ("clients_per_round", "corrupted_clients"):
                if (count := getattr(self, name)) > self.clients:
                    raise UsageError(f"{option_name(name)} {count} is more than the {self.clients} clients")
            if self.overshoot > 1 and self.clients_per_round == self.clients:
                raise UsageError(
                    f"--overshoot has nobody else to ask: a round already takes all {self.clients} clients; "
                    "lower --clients-per-round"
                )
        shape = model_config.ModelConfig.from_dict(dict(self.model_config))
        if self.masked_group_norm and shape.front_end == "log-mel":
            raise UsageError(
                "--masked-group-norm is for convolutions, which a model on log-mel input lacks: leave it out"
            )
        with arguments.blaming("--method"):
            config = memory_methods.configured(shape, self.method)
        if memory_methods.is_layerwise(self.method):
            raise UsageError("--method layerwise is for single steps (bench memory, profile): leave it out")
        if self.dp_clip_norm is not None and config.frozen_feature_encoder:
            raise UsageError("--method frozen-encoder with --dp-clip-norm: noise would move what is frozen")
        crop = self.crop_seconds or recipes.RECIPES[self.model].crop_seconds
        seconds = min(crop, config.truncate_seconds or math.inf)
        if config.num_frames(round(seconds * model_config.SAMPLE_RATE_HZ)) < 2 * config.mask_span:
            milliseconds = 1000 * config.frame_samples // model_config.SAMPLE_RATE_HZ
            raise UsageError(
                f"--seconds {seconds} holds fewer than two mask spans of "
                f"{config.mask_span} frames of {milliseconds} ms: "
                "give a longer crop"
            )


def resolve(options: PretrainArguments) -> dict[str, Any]:
    """Fill in defaults and check values.

    Returns:
        The fields of Settings.

    Raises:
        UserError, UsageError: an unknown preset or model, a value out of range, or options that cannot be
            combined.
    """
    model, shape = _model(options)
    arguments.check_choice("--preset", options.preset, recipes.PRESETS)
    check(options)
    settings = _filled(options, model, shape)
    settings.check()
    return dataclasses.asdict(settings)


def _filled(options: PretrainArguments, model: str, shape: model_config.ModelConfig) -> Settings:
    preset, recipe = recipes.PRESETS[options.preset], recipes.RECIPES[model]
    clients, rounds = options.clients or preset.clients, options.rounds or preset.rounds
    given = {name: value for name, value in vars(options).items() if name not in NO_SETTINGS}
    return Settings(
        **given
        | {
            "data": str(options.data) if options.data else None,
            "probe_data": str(options.probe_data) if options.probe_data else None,
            "model": model,
            "rounds": rounds,
            "clients": None if options.partition == "speakers" else clients,
            "clients_per_round": options.clients_per_round or min(preset.clients_per_round, clients),
            "corrupted_clients": 0 if options.corruption == "none" else options.corrupted_clients,
            "local_steps": None if options.local_epochs else options.local_steps or preset.local_steps,
            "batch_size": options.batch_size or recipe.batch_size,
            "learning_rate": options.learning_rate or recipe.learning_rate,
            "warmup_share": recipe.warmup_share,
            "clip_norm": recipe.clip_norm,
            "weight_decay": recipe.weight_decay,
            "evaluate_every": options.evaluate_every or max(1, rounds // 20),
            "model_config": dataclasses.asdict(shape),
            # Gao et al. 2022 take the last local epoch. Clients that make equal numbers of steps end their
            # epochs at different times, so that theirs is the whole round: one window for all.
            "loss_window": "last-epoch" if options.local_epochs else "round",
        }
    )


def _model(options: PretrainArguments) -> tuple[str, model_config.ModelConfig]:
    """Find the preset whose recipe is used, and the model's configuration.

    Raises:
        UserError, UsageError: there is no such preset, or `--init` is no model, or one of another shape.
    """
    model = options.model
    if model is not None and f"best-rq-{model}" not in model_config.PRESETS:
        arguments.check_choice("--model", model, model_config.PRESETS)
    if model is not None or options.init is None:
        try:
            model = model_config.preset_of(options.objective, model)
        except ValueError as error:
            raise UsageError(f"--objective and --model: {error}") from error
    if options.init is None:
        assert model is not None
        return model, model_config.PRESETS[model]
    from experiments.models import encoders

    name, shape = encoders.pretraining_choice(options.init, model, options.out)
    wanted = options.objective or (model_config.PRESETS[model].objective if model else None)
    if wanted not in (None, shape.objective):
        option = f"--objective {wanted}" if options.objective else f"--model {model}"
        raise UsageError(
            f"{option}: --init {options.init} was trained by {shape.objective}, on {shape.front_end} input: "
            f"give a run of {wanted}, or leave {option.split()[0]} out"
        )
    return name, shape


def check_lengthening(settings: Settings, planned_before: int | None, run: Path) -> None:
    """Check that a run can go on to more rounds than it was planned for.

    Args:
        settings: the settings of the run, with its new length.
        planned_before: rounds of the former plan; None for a run that is not lengthened.
        run: folder of the run.

    Raises:
        UsageError: the run's noise was chosen for the rounds of the former plan.
    """
    if planned_before is None or settings.dp_epsilon is None:
        return
    start = f"{run}@best" if settings.keep_best else str(run)
    raise UsageError(
        f"--rounds {settings.rounds}: the run's noise spends --dp-epsilon {settings.dp_epsilon} in its "
        f"{planned_before} rounds, so that none is left for more; finish it with --rounds {planned_before}, "
        f"then begin another run from its model with the same options but --init {start} --rounds "
        f"{settings.rounds - planned_before} --out {run}-more; the epsilons of both runs add up"
    )

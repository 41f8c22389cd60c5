"""`w2v-jax pretrain`: federated or centralised pre-training on recorded or synthetic speech."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.costs import memory_budget
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.pretrain import recipes
from experiments.pretrain.recipes import Aggregation, Corruption, Partition, ServerOptimizer, SkewedColumn
from experiments.process import xla_flags
from experiments.process.distributed import join_processes
from experiments.process.provenance import record_provenance
from w2v_jax import config as model_config
from w2v_jax import memory_methods

MAX_SEED = 2**31
MAY_BE_ZERO = ("seed", "proximal", "client_dropout", "speed_spread", "dp_noise_multiplier")
# Settings that older runs' config.json lacks, and what those runs did.
ABSENT_SETTINGS = {
    "corruption": "none",
    "corrupted_clients": 0,
    "diagnose_every": None,
    "keep_checkpoints": 2,
    "server_optimizer": "fedavg",
    "server_learning_rate": 1.0,
    "proximal": 0.0,
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
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainArguments:
    """Pre-train wav2vec 2.0 across simulated clients; run the same command again to continue.

    example: w2v-jax pretrain --data corpora/en --model tiny --preset ten-clients
    """

    data: Path | None = None
    """A Common Voice locale's folder or its parent. Left out: a synthetic corpus."""
    out: Path | None = None
    """Run folder. Default: runs/<preset>-<model>-<aggregation>, and -<corruption> where there is one."""
    model: str | None = None
    """Model preset: tiny, base, large or large-lv60. Default: tiny, or what has the shape of --init."""
    init: str | None = None
    """Begin from this model instead of a fresh one: a run folder of w2v-jax pretrain (RUN@ROUND for an
    earlier checkpoint) or convert, or hf:FOLDER of a Wav2Vec2ForPreTraining."""
    preset: str = "ten-clients"
    """ten-clients, hundred-clients (20 a round) or centralised."""
    rounds: int | None = None
    """Length of the run; schedules span it. Default: the preset's."""
    aggregation: Aggregation = "fedavg"
    """How client updates are weighted: by audio seconds, by a softmax over negative losses, or all alike."""
    temperature: float = 1.0
    """Temperature of the loss-weighted softmax."""
    server_optimizer: ServerOptimizer = "fedavg"
    """What the server does with the clients' mean update: take it (fedavg), with momentum 0.9 (fedavgm), or
    as a gradient for Adam, Yogi or Adagrad (fedadam, fedyogi, fedadagrad: Reddi et al. 2021)."""
    server_learning_rate: float = 1.0
    """Learning rate of the server's optimizer; the adaptive ones want less, 0.01 or so."""
    proximal: float = 0.0
    """FedProx's mu: pulls local parameters towards the round's first ones."""
    clients: int | None = None
    """Number of clients. Default: the preset's."""
    clients_per_round: int | None = None
    """Clients that take part in a round. Default: the preset's."""
    local_steps: int | None = None
    """Updates per client and round. Default: the preset's."""
    local_epochs: int | None = None
    """Local work in epochs over a client's clips, instead of steps."""
    batch_size: int | None = None
    """Crops per update. Default: the model's recipe."""
    crop_seconds: float | None = None
    """Length of a training crop. Default: the model's recipe."""
    optimizer: model_config.OptimizerName = "adamw"
    """The client optimizer. adamw keeps two arrays of the model's size, lion one, adafactor sums along axes,
    sgd none. Recipes' learning rates are AdamW's; lion wants a tenth of them, sgd far more."""
    learning_rate: float | None = None
    """Peak learning rate of the client optimizer. Default: the model's recipe."""
    heldout_speakers: int | None = None
    """Speakers set aside for evaluation. Default: about a fifth, at most 28."""
    partition: Partition = "balanced"
    """balanced: disjoint speakers, about equal seconds. speakers: each a client. iid: clips at random.
    dirichlet: disjoint speakers; each value of a column is shared out among the clients by Dirichlet
    (Yurochkin et al. 2019, as in Flower). dirichlet-equal: disjoint speakers, about equal seconds; each
    client's mix of the column's values is drawn from Dirichlet (Hsu et al. 2019)."""
    dirichlet_alpha: float = 0.5
    """Concentration of the dirichlet partitions: small values skew the column more."""
    dirichlet_column: SkewedColumn = "accent"
    """Column that the dirichlet partitions skew."""
    split: str = "validated"
    """Table to pre-train on."""
    exclude_speakers_of: tuple[Literal["dev", "test"], ...] = ()
    """Splits whose speakers are kept out of pre-training: `validated` holds dev and test too."""
    corruption: Corruption = "none"
    """Spoil the training audio of some clients, chosen by the seed. noise: white, as strong as the clip.
    clip: 30 dB louder, saturated. quiet: 60 dB softer, rounded to 16 bits again."""
    corrupted_clients: int = 2
    """Clients whose training audio --corruption spoils."""
    client_dropout: float = 0.0
    """Share of the clients asked that never answer."""
    overshoot: float = 1.0
    """Clients asked for each one wanted; the earliest answers are taken."""
    speed_spread: float = 0.0
    """How unlike clients' devices are: standard deviation of the logarithm of their seconds a step."""
    deadline_steps: float | None = None
    """Rounds close when a device of median speed has done so many steps; later clients are left out."""
    max_update_norm: float | None = None
    """Client updates of a larger norm are left out, as those that are not finite are."""
    dp_clip_norm: float | None = None
    """Differential privacy for clients: the norm that updates are clipped to. With --aggregation uniform;
    clients are then drawn by themselves, so that cohorts differ in size. The model is what is private:
    noise and draws come from --seed, and metrics.jsonl names clients and losses."""
    dp_clipping: Literal["whole", "layer"] = "whole"
    """Clip the whole update, or every parameter array of every layer by itself."""
    dp_noise_multiplier: float | None = None
    """Standard deviation of the noise on the sum of updates, in clip norms."""
    dp_epsilon: float | None = None
    """Instead of a multiplier: the privacy that the whole run may spend."""
    dp_delta: float = 1e-5
    """Delta beside epsilon; well below one over the number of clients."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 rounds the operands of matrix products; everything else stays fp32."""
    method: str = "plain"
    """How gradients are computed: names with commas between, see w2v-jax bench memory --list. exact: all that
    takes less memory and changes no gradient."""
    memory_budget: str | None = None
    """Instead of a method: memory of the process, as 4GB or 800MB; the exact combination with the fewest
    operations that fits is picked, and said. On an accelerator clients are counted one by one: give
    --chunk 1."""
    masked_group_norm: bool = False
    """Normalise over valid frames alone, so that padding changes nothing."""
    evaluate_every: int | None = None
    """Rounds between evaluations. Default: about twenty evaluations a run."""
    diagnose_every: int | None = None
    """Rounds between looks at every client's update and local model (diagnostics.jsonl): the cost of
    about clients + 2 short evaluations each. Default: never."""
    checkpoint_every: int = 5
    """Rounds between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; finetune --init RUN@ROUND takes an earlier one."""
    lanes: int | None = None
    """Devices that train side by side. Default: all (on CPU one per core)."""
    chunk: int | None = None
    """Clients vmapped on one device. Default: one on CPU; elsewhere what a measurement at the start finds
    fastest."""
    shards: int = 1
    """Devices that share each lane's models, where one device does not hold a client."""
    distributed: str | None = None
    """One process of several, each started with the same command: auto under SLURM, Kubernetes, MPI or on a
    TPU pod, else INDEX/COUNT@HOST:PORT with the address of process 0. They share the run folder."""
    seed: int = 0
    """Seed of everything random."""


def resolve(options: PretrainArguments) -> dict[str, Any]:
    """Fill in defaults and check values: the settings that make a run what it is.

    Raises:
        UsageError: an unknown preset or model, or a value out of range.
    """
    model, shape = _model(options)
    arguments.check_choice("--preset", options.preset, recipes.PRESETS)
    for name, value in dataclasses.asdict(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name.replace('_', '-')} must be finite, got {value}")
        if (
            name not in MAY_BE_ZERO
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and value <= 0
        ):
            raise UsageError(f"--{name.replace('_', '-')} must be positive, got {value}")
    if options.local_steps and options.local_epochs:
        raise UsageError("give either --local-steps or --local-epochs, not both")
    if not 0 <= options.seed < MAX_SEED:
        raise UsageError(f"--seed must be between 0 and {MAX_SEED - 1}, got {options.seed}")
    preset, recipe = recipes.PRESETS[options.preset], recipes.RECIPES[model]
    if options.preset == "centralised":
        federated_only = (
            "clients", "clients_per_round", "local_epochs", "aggregation", "temperature", "lanes", "chunk",
            "partition", "corruption", "diagnose_every", "server_optimizer", "server_learning_rate",
            "proximal",
            "client_dropout", "overshoot", "speed_spread", "deadline_steps", "max_update_norm",
            "dp_clip_norm", "shards", "distributed",
        )  # fmt: skip
        if given := _changed(options, federated_only):
            raise UsageError(f"--{given[0].replace('_', '-')} has no meaning with --preset centralised")
    _check_faults_and_privacy(options)
    if options.aggregation != "loss-weighted" and options.temperature != _default("temperature"):
        raise UsageError("--temperature has a meaning with --aggregation loss-weighted alone")
    if options.partition == "speakers" and options.clients:
        raise UsageError("--clients has no meaning with --partition speakers: every speaker is a client")
    skewing = ("dirichlet_alpha", "dirichlet_column")
    if options.partition not in recipes.SKEWED_PARTITIONS and (given := _changed(options, skewing)):
        raise UsageError(
            f"--{given[0].replace('_', '-')} has a meaning with --partition "
            f"{' and '.join(recipes.SKEWED_PARTITIONS)} alone"
        )
    if options.corruption == "none" and _changed(options, ["corrupted_clients"]):
        raise UsageError("--corrupted-clients has a meaning with --corruption noise, clip or quiet alone")
    clients = options.clients or preset.clients
    rounds = options.rounds or preset.rounds
    settings = dataclasses.asdict(options) | {
        "data": str(options.data) if options.data else None,
        "model": model,
        "rounds": rounds,
        "clients": None if options.partition == "speakers" else clients,
        "clients_per_round": options.clients_per_round or min(preset.clients_per_round, clients),
        "corrupted_clients": 0 if options.corruption == "none" else options.corrupted_clients,
        "local_steps": None if options.local_epochs else options.local_steps or preset.local_steps,
        "batch_size": options.batch_size or recipe.batch_size,
        "crop_seconds": options.crop_seconds or recipe.crop_seconds,
        "learning_rate": options.learning_rate or recipe.learning_rate,
        "warmup_share": recipe.warmup_share,
        "clip_norm": recipe.clip_norm,
        "weight_decay": recipe.weight_decay,
        "evaluate_every": options.evaluate_every or max(1, rounds // 20),
        # Presets may change between versions; a run that continues must not.
        "model_config": dataclasses.asdict(shape),
    }
    del settings["out"], settings["distributed"], settings["memory_budget"]
    if options.partition != "speakers" and settings["clients_per_round"] > clients:
        raise UsageError(
            f"--clients-per-round {settings['clients_per_round']} is more than the {clients} clients"
        )
    if options.partition != "speakers" and options.overshoot > 1 and settings["clients_per_round"] == clients:
        raise UsageError(
            f"--overshoot has nobody else to ask: a round already takes all {clients} clients; lower "
            "--clients-per-round"
        )
    if options.partition != "speakers" and settings["corrupted_clients"] > clients:
        raise UsageError(
            f"--corrupted-clients {settings['corrupted_clients']} is more than the {clients} clients"
        )
    with arguments.blaming("--method"):
        config = memory_methods.configured(shape, options.method)
    if memory_methods.is_layerwise(options.method):
        raise UsageError("--method layerwise is for single steps (bench memory, profile): leave it out")
    if options.dp_clip_norm is not None and config.frozen_feature_encoder:
        raise UsageError("--method frozen-encoder with --dp-clip-norm: noise would move what is frozen")
    if options.memory_budget is not None:
        memory_budget.parse(options.memory_budget)
        if options.method != memory_methods.PLAIN:
            raise UsageError("give either --method or --memory-budget: the latter picks a method")
        if options.distributed:
            raise UsageError("--memory-budget is for one process: give --method with --distributed")
    seconds = min(settings["crop_seconds"], config.truncate_seconds or math.inf)
    crop_samples = round(seconds * model_config.SAMPLE_RATE_HZ)
    if config.num_frames(crop_samples) < 2 * config.mask_span:
        raise UsageError(
            f"--crop-seconds {seconds} holds fewer than two mask spans of "
            f"{config.mask_span} frames of 20 ms: give a longer crop"
        )
    return settings


def _check_faults_and_privacy(options: PretrainArguments) -> None:
    for name in MAY_BE_ZERO:
        if (value := getattr(options, name)) is not None and value < 0:
            raise UsageError(f"--{name.replace('_', '-')} must not be negative, got {value}")
    if options.client_dropout >= 1:
        raise UsageError(f"--client-dropout must be below 1, got {options.client_dropout}")
    if options.overshoot < 1:
        raise UsageError(f"--overshoot must be at least 1, got {options.overshoot}")
    private = ("dp_clipping", "dp_noise_multiplier", "dp_epsilon", "dp_delta")
    if options.speed_spread and options.deadline_steps is None and options.overshoot == 1:
        raise UsageError("--speed-spread changes nothing without --deadline-steps or --overshoot")
    if options.dp_clip_norm is None:
        if given := _changed(options, private):
            raise UsageError(f"--{given[0].replace('_', '-')} has a meaning with --dp-clip-norm alone")
        return
    if options.aggregation != "uniform":
        raise UsageError("--dp-clip-norm needs --aggregation uniform: other weights come from the data")
    if (options.dp_noise_multiplier is None) == (options.dp_epsilon is None):
        raise UsageError("give either --dp-noise-multiplier or --dp-epsilon with --dp-clip-norm")
    if options.local_epochs:
        raise UsageError(
            "--dp-clip-norm needs --local-steps: with epochs the schedule depends on who takes part"
        )
    if options.dp_delta >= 1:
        raise UsageError(f"--dp-delta must be below 1, got {options.dp_delta}")
    if given := _changed(options, ("overshoot", "deadline_steps", "speed_spread")):
        raise UsageError(
            f"--{given[0].replace('_', '-')} cannot be combined with --dp-clip-norm: who is late would "
            "change the sampling that privacy is accounted for"
        )


def _default(option: str) -> Any:
    return PretrainArguments.__dataclass_fields__[option].default


def _changed(options: PretrainArguments, names: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(options, name) != _default(name)]


def _model(options: PretrainArguments) -> tuple[str, model_config.ModelConfig]:
    """The preset whose recipe is used, and the model's configuration.

    Raises:
        UserError, UsageError: no such preset, or `--init` is no model, or of another shape.
    """
    if options.model is not None:
        arguments.check_choice("--model", options.model, model_config.PRESETS)
    if options.init is None:
        name = options.model or "tiny"
        return name, model_config.PRESETS[name]
    from experiments.models import encoders

    held = encoders.pretraining_config(options.init)
    if options.model is not None:
        encoders.check_shape(held, model_config.PRESETS[options.model], options.init, options.model)
        return options.model, held
    alike = [name for name, preset in model_config.PRESETS.items() if encoders.same_shape(held, preset)]
    return alike[0] if alike else "base", held


def default_folder(settings: dict[str, Any]) -> Path:
    """runs/<preset>-<model>[-<aggregation>][-<corruption>]."""
    parts = [settings["preset"], settings["model"]]
    if settings["preset"] != "centralised":
        parts.append(settings["aggregation"])
    if settings["corruption"] != "none":
        parts.append(settings["corruption"])
    return Path("runs") / "-".join(parts)


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(PretrainArguments, argv, "w2v-jax pretrain")
    settings = resolve(options)
    lanes = None
    if settings["preset"] != "centralised":
        wanted = settings["clients_per_round"] * options.shards
        lanes = (options.lanes or 0) * options.shards or min(xla_flags.usable_cores(), wanted)
    if options.distributed:
        lanes = None  # each process brings its own devices
    if options.method != memory_methods.PLAIN or options.memory_budget is not None:
        xla_flags.spare_memory()
    xla_flags.configure_xla(
        lanes if options.distributed else lanes or 1, model=settings["model"], precision=options.precision
    )
    out = options.out or default_folder(settings)
    if options.memory_budget is not None:
        settings["method"] = kept_method(out) or pick(settings, options.memory_budget, lanes or 1)
    first = options.distributed is None or join_processes(options.distributed)
    from experiments.pretrain.run import Pretraining
    from experiments.runs.folder import RunFolder, continuing_after_disk_errors

    with continuing_after_disk_errors():
        provenance = record_provenance("pretrain", settings["seed"])
        folder = RunFolder(out, settings, provenance, absent=ABSENT_SETTINGS, writes=first)
        with contextlib.closing(folder):
            Pretraining(settings, folder).run()


def kept_method(out: Path) -> str | None:
    """The method of a run that is there already, which goes on with it whatever would be picked today."""
    from experiments.runs.folder import read_config

    if not (out / "config.json").exists():
        return None
    method = read_config(out)["settings"].get("method", memory_methods.PLAIN)
    print(f"{out} holds a run with method {method}, which continues", flush=True)
    return method


def pick(settings: dict[str, Any], budget: str, lanes: int) -> str:
    """The method that fits into a budget, said aloud.

    A process holds, beside a step's plan for each client that trains at the time, the server's parameters and
    each lane's sum of updates. Plans are compiled in a process of their own.

    Raises:
        UsageError: none fits.
    """
    step = {
        "model": settings["model"],
        "seconds": settings["crop_seconds"],
        "batch": settings["batch_size"],
        "precision": settings["precision"],
        "optimizer": settings["optimizer"],
    }
    budget_bytes = memory_budget.parse(budget)
    choice = memory_budget.choose_in_child(
        step, budget_bytes, steps=lanes * (settings["chunk"] or 1), models=2 + lanes
    )
    print(choice.describe(budget_bytes), flush=True)
    return choice.method

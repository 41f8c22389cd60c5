"""The options of `w2v-jax pretrain`, and which of them can be combined. Imports no jax."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from experiments.costs import memory_budget
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.pretrain.recipes import (
    SKEWED_PARTITIONS,
    Aggregation,
    Corruption,
    Partition,
    ServerOptimizer,
    SkewedColumn,
)
from experiments.runs.best_round import Criterion
from w2v_jax import memory_methods
from w2v_jax.config import ObjectiveName, OptimizerName

MAX_SEED = 2**31
CENTRALISED = "centralised"
MAY_BE_ZERO = (
    "seed", "proximal", "client_dropout", "speed_spread", "dp_noise_multiplier", "heldout_speakers",
)  # fmt: skip
FEDERATED_ONLY = (
    "clients", "clients_per_round", "local_epochs", "aggregation", "temperature", "lanes", "chunk",
    "partition", "corruption", "diagnose_every", "server_optimizer", "server_learning_rate", "proximal",
    "client_dropout", "overshoot", "speed_spread", "deadline_steps", "max_update_norm", "dp_clip_norm",
    "shards", "distributed", "algorithm", "algorithm_options", "client_states",
)  # fmt: skip
PRIVATE_ONLY = ("dp_clipping", "dp_noise_multiplier", "dp_epsilon", "dp_delta")
SKEWED_ONLY = ("dirichlet_alpha", "dirichlet_column")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainArguments:
    """Pre-train wav2vec 2.0 or BEST-RQ across simulated clients; run the same command again to continue.

    example: w2v-jax pretrain --data corpora/en --model tiny --preset ten-clients
    """

    SHOWN_FIRST: ClassVar = (
        "data", "model", "objective", "init", "batch_size",
        "preset", "rounds", "clients", "algorithm", "out",
    )  # fmt: skip

    data: Path | None = None
    """Folder of a Common Voice locale, its parent, or a prepared data set. Default: a synthetic corpus."""
    out: Path | None = None
    """Run folder. Default: runs/<preset>-<model>-<aggregation or algorithm>, with -<corruption> if audio is
    spoilt."""
    objective: ObjectiveName | None = None
    """wav2vec2 tells a masked frame's code from the codes of other frames. best-rq names a masked frame's
    codes in fixed random codebooks of log-mel spectra. Default: the model's."""
    model: str | None = None
    """Model preset. wav2vec 2.0 has tiny, base, large and large-lv60, and on log-mel spectra log-mel-tiny and
    log-mel-small. BEST-RQ has best-rq-tiny, best-rq-small and best-rq-base; with --objective best-rq the size
    alone is enough. Default: tiny, or the preset of --init's shape."""
    init: str | None = None
    """Model to start from: a run folder of w2v-jax pretrain (RUN@ROUND or RUN@best for another checkpoint) or
    of convert, or hf:FOLDER of a Wav2Vec2ForPreTraining. Default: random parameters."""
    preset: str = "ten-clients"
    """Kind of run: ten-clients, hundred-clients (20 take part in a round) or centralised."""
    rounds: int | None = None
    """Rounds of the run; the learning rate's schedule spans them. A larger number lengthens a finished run.
    Default: the preset's."""
    algorithm: str = "fedavg"
    """Federated algorithm: fedavg, fedprox, scaffold, fednova, feddyn, mime-lite, q-fedavg, diloco, median,
    trimmed-mean or krum, or FILE.py:NAME for one of your own (docs/guides/own-algorithm.md)."""
    algorithm_options: tuple[str, ...] = ()
    """Settings of the algorithm, NAME=VALUE, such as mu=0.1 for fedprox or share=0.2 for trimmed-mean.
    Default: the algorithm's."""
    client_states: Literal["memory", "disk"] = "memory"
    """Where the states of clients are held that some algorithms keep from round to round, such as scaffold's
    control variates. disk reads and writes a client's when it takes part."""
    aggregation: Aggregation = "fedavg"
    """Weights of client updates. fedavg weighs by seconds of audio, loss-weighted by a softmax of negative
    training losses, and uniform weighs all alike."""
    temperature: float = 1.0
    """Temperature of the loss-weighted softmax."""
    server_optimizer: ServerOptimizer = "fedavg"
    """How the server uses the clients' mean update. fedavg adds it, and fedavgm adds it with momentum 0.9.
    fedadam, fedyogi and fedadagrad take it as a gradient for Adam, Yogi or Adagrad (Reddi et al. 2021)."""
    server_learning_rate: float = 1.0
    """Learning rate of the server's optimizer; the adaptive optimizers need less, about
    0.01."""
    proximal: float = 0.0
    """FedProx's mu: how strongly local parameters are pulled towards the parameters at the round's start."""
    clients: int | None = None
    """Number of clients. Default: the preset's."""
    clients_per_round: int | None = None
    """Clients that take part in a round. Default: the preset's."""
    local_steps: int | None = None
    """Optimizer steps of each client in a round. Default: the preset's."""
    local_epochs: int | None = None
    """Epochs over its clips that each client trains in a round, instead of --local-steps.
    Default: --local-steps decides."""
    batch_size: int | None = None
    """Utterances in a batch, cut to crops of --seconds. Default: the model's recipe."""
    crop_seconds: float | None = None
    """Length of a training crop, in seconds. Default: the model's recipe, or less where clips are so short
    that more than a tenth of a batch would be padding."""
    optimizer: OptimizerName = "adamw"
    """Optimizer of a client. adamw keeps two arrays of the model's size, lion keeps one, adafactor keeps sums
    along axes, and sgd keeps nothing. The learning rates of recipes are for adamw; lion needs a tenth of
    them, and sgd needs far more."""
    learning_rate: float | None = None
    """Peak learning rate of a client's optimizer. Default: the model's recipe."""
    heldout_speakers: int | None = None
    """Speakers set aside for evaluation. 0 sets a tenth of the clips aside instead, at most 500, whose
    speakers are also trained on. Default: about a fifth of the speakers, at most 28."""
    partition: Partition = "balanced"
    """balanced: clients share no speaker and have about equal seconds. speakers: each speaker is a client.
    iid: clips at random, so that clients share speakers; one speaker is enough. dirichlet: clients share no
    speaker; each value of --dirichlet-column is shared out by a Dirichlet distribution (Yurochkin et al.
    2019, as in Flower).
    dirichlet-equal: clients share no speaker and have about equal seconds; each client's mix of the column's
    values is drawn from a Dirichlet distribution (Hsu et al. 2019)."""
    dirichlet_alpha: float = 0.5
    """Evenness with which the dirichlet partitions deal the column; smaller is more uneven."""
    dirichlet_column: SkewedColumn = "accent"
    """Column that the dirichlet partitions deal unevenly."""
    split: str = "validated"
    """Table of the clips to pre-train on."""
    exclude_speakers_of: tuple[Literal["dev", "test"], ...] = ()
    """Splits whose speakers are not trained on, because `validated` also holds dev and test. Default:
    none."""
    corruption: Corruption = "none"
    """Spoil the training audio of some clients, which the seed chooses. noise adds white noise as strong as
    the clip. clip makes it 30 dB louder and cuts the peaks off. quiet makes it 60 dB softer and rounds it to
    16 bits again."""
    corrupted_clients: int = 2
    """Number of clients whose training audio --corruption spoils."""
    client_dropout: float = 0.0
    """Share of the clients asked in a round that do not answer."""
    overshoot: float = 1.0
    """Number of clients to ask for each client wanted, such as 1.3; the earliest answers count."""
    speed_spread: float = 0.0
    """Spread of the speeds of clients' devices: standard deviation of log(seconds a step)."""
    deadline_steps: float | None = None
    """Deadline of a round, in steps of a device of median speed; clients that come later are left out.
    Default: no deadline."""
    max_update_norm: float | None = None
    """Largest norm of an update; the server leaves out larger updates, and updates that are not finite.
    Default: no limit."""
    dp_clip_norm: float | None = None
    """Turn on differential privacy of clients, and clip each update to this norm. It needs --aggregation
    uniform. Each client is drawn independently, so that cohorts differ in size. Only the model is private:
    noise and draws come from --seed, and metrics.jsonl names clients and losses. Default: no privacy."""
    dp_clipping: Literal["whole", "layer"] = "whole"
    """whole clips the update as a whole. layer clips each parameter array of each layer by itself."""
    dp_noise_multiplier: float | None = None
    """Standard deviation of the noise added to the sum of updates, as a multiple of --dp-clip-norm.
    Default: computed from --dp-epsilon."""
    dp_epsilon: float | None = None
    """Epsilon that the whole run may spend, instead of --dp-noise-multiplier. Default:
    --dp-noise-multiplier decides."""
    dp_delta: float = 1e-5
    """Delta of the privacy guarantee; it should be well below one over the number of clients."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 rounds the operands of matrix products; everything else stays fp32."""
    method: str = "plain"
    """How gradients are computed: method names separated by commas; w2v-jax bench memory --list explains
    them. exact combines all methods that save memory and leave the gradient as it is."""
    memory_budget: str | None = None
    """Memory for the process, such as 4GB or 800MB, instead of --method: the cheapest exact combination that
    fits is picked and printed. On an accelerator only one client at a time is counted: give --chunk 1.
    Default: no limit."""
    masked_group_norm: bool = False
    """Normalise over valid frames only, so that padding changes nothing."""
    evaluate_every: int | None = None
    """Rounds between evaluations. Default: about twenty evaluations in a run."""
    diagnose_every: int | None = None
    """Rounds between diagnoses of each client's update and local model (diagnostics.jsonl); each costs about
    clients + 2 short evaluations. Default: never."""
    probe_every: int | None = None
    """Rounds between probes, which are linear classifiers of the frozen encoder's frames, trained on a few
    labelled clips of --probe-data. The column probe_accuracy is their accuracy on its dev split. Default:
    never."""
    probe_data: Path | None = None
    """Corpus whose sentences are single words, for --probe-every. At most about 400 clips of its train and of
    its dev are used. Default: no probes."""
    keep_best: Criterion | None = None
    """Keep the checkpoint of the best round too, in best/ of the run folder; RUN@best opens it. The best
    round has the highest probe_accuracy (probe), the lowest heldout_loss or the highest heldout_accuracy.
    Default: the newest checkpoints alone."""
    checkpoint_every: int = 5
    """Rounds between checkpoints."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints that are kept. finetune --init RUN@ROUND takes an earlier one, and
    RUN@best takes that of --keep-best."""
    lanes: int | None = None
    """Devices that train side by side. Default: all devices (on a CPU, one for each core)."""
    chunk: int | None = None
    """Clients vmapped on one device. Default: one on a CPU; elsewhere the fastest number, which is measured
    at the start."""
    shards: int = 1
    """Devices that share the models of a lane, if one device cannot hold a client."""
    distributed: str | None = None
    """Run as one of several processes that share the run folder; start each with the same command. Give auto
    under SLURM, Kubernetes, MPI or on a TPU pod, otherwise INDEX/COUNT@HOST:PORT with the address of process
    0. Default: one process."""
    track: Literal["trackio", "wandb"] | None = None
    """Library that gets the run's scalars too, as TensorBoard has them, in the project w2v-jax. A run that
    continues stays one tracked run. Default: none."""
    seed: int = 0
    """Seed of everything random."""


def check(options: PretrainArguments) -> None:
    """Check values, and options against one another.

    Raises:
        UserError, UsageError: a value is out of range, or two options cannot be combined.
    """
    _check_numbers(options)
    _check_combinations(options)
    _check_faults(options)
    _check_privacy(options)
    _check_memory(options)


def _check_numbers(options: PretrainArguments) -> None:
    for name, value in vars(options).items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not math.isfinite(value):
            raise UsageError(f"{option_name(name)} must be finite, got {value}")
        if name in MAY_BE_ZERO and name != "seed" and value < 0:
            raise UsageError(f"{option_name(name)} must not be negative, got {value}")
        if name not in MAY_BE_ZERO and value <= 0:
            raise UsageError(f"{option_name(name)} must be positive, got {value}")
    if not 0 <= options.seed < MAX_SEED:
        raise UsageError(f"--seed must be between 0 and {MAX_SEED - 1}, got {options.seed}")


def _check_combinations(options: PretrainArguments) -> None:
    """Refuse options that have no meaning without, or beside, another one."""
    if options.local_steps and options.local_epochs:
        raise UsageError("give either --local-steps or --local-epochs, not both")
    if options.preset == CENTRALISED and (given := _changed(options, FEDERATED_ONLY)):
        raise UsageError(f"{option_name(given[0])} has no meaning with --preset centralised")
    if options.aggregation != "loss-weighted" and _changed(options, ["temperature"]):
        raise UsageError("--temperature has a meaning with --aggregation loss-weighted alone")
    if options.partition == "speakers" and options.clients:
        raise UsageError("--clients has no meaning with --partition speakers: every speaker is a client")
    if options.partition not in SKEWED_PARTITIONS and (given := _changed(options, SKEWED_ONLY)):
        raise UsageError(
            f"{option_name(given[0])} has a meaning with --partition {' and '.join(SKEWED_PARTITIONS)} alone"
        )
    if (options.probe_every is None) != (options.probe_data is None):
        raise UsageError("--probe-every and --probe-data need one another: how often, and on which corpus")
    if options.keep_best == "probe" and options.probe_every is None:
        raise UsageError("--keep-best probe needs --probe-every and --probe-data")
    if options.corruption == "none" and _changed(options, ["corrupted_clients"]):
        raise UsageError("--corrupted-clients has a meaning with --corruption noise, clip or quiet alone")


def _check_faults(options: PretrainArguments) -> None:
    if options.client_dropout >= 1:
        raise UsageError(f"--client-dropout must be below 1, got {options.client_dropout}")
    if options.overshoot < 1:
        raise UsageError(f"--overshoot must be at least 1, got {options.overshoot}")
    if options.speed_spread and options.deadline_steps is None and options.overshoot == 1:
        raise UsageError("--speed-spread changes nothing without --deadline-steps or --overshoot")


def _check_privacy(options: PretrainArguments) -> None:
    if options.dp_clip_norm is None:
        if given := _changed(options, PRIVATE_ONLY):
            raise UsageError(f"{option_name(given[0])} has a meaning with --dp-clip-norm alone")
        return
    if options.algorithm not in ("fedavg", "fedprox"):
        raise UsageError(
            "--dp-clip-norm needs --algorithm fedavg or fedprox: others send more than an update"
        )
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
            f"{option_name(given[0])} cannot be combined with --dp-clip-norm: leaving out late clients would "
            "change the sampling that privacy is accounted for"
        )


def _check_memory(options: PretrainArguments) -> None:
    if options.memory_budget is None:
        return
    memory_budget.parse(options.memory_budget)
    if options.method != memory_methods.PLAIN:
        raise UsageError("give either --method or --memory-budget: the latter picks a method")
    if options.distributed:
        raise UsageError("--memory-budget is for one process: give --method with --distributed")


def _changed(options: PretrainArguments, names: Sequence[str]) -> list[str]:
    """Find the options that differ from their defaults."""
    fields = PretrainArguments.__dataclass_fields__
    return [name for name in names if getattr(options, name) != fields[name].default]

"""Refuse values and combinations of the options of `w2v-jax pretrain`. Imports no jax."""

import math
from collections.abc import Sequence

from experiments.costs import memory_budget
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.pretrain.options import CENTRALISED, PretrainArguments
from experiments.pretrain.recipes import SKEWED_PARTITIONS
from w2v_jax import memory_methods

MAX_SEED = 2**31
MAY_BE_ZERO = (
    "seed", "proximal", "client_dropout", "speed_spread", "dp_noise_multiplier", "heldout_speakers",
)  # fmt: skip
FEDERATED_ONLY = (
    "clients", "clients_per_round", "local_epochs", "aggregation", "temperature", "lanes", "chunk",
    "partition", "corruption", "diagnose_every", "server_optimizer", "server_learning_rate", "proximal",
    "client_dropout", "overshoot", "speed_spread", "deadline_steps", "max_update_norm", "dp_clip_norm",
    "shards", "distributed", "algorithm", "algorithm_options", "client_states", "compress_up",
    "compress_down", "error_feedback",
)  # fmt: skip
PRIVATE_ONLY = ("dp_clipping", "dp_noise_multiplier", "dp_epsilon", "dp_delta")
SKEWED_ONLY = ("dirichlet_alpha", "dirichlet_column")


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
    if not options.error_feedback and options.compress_up is None:
        raise UsageError("--no-error-feedback has a meaning with --compress-up alone")
    if options.algorithm == "mime-lite" and options.optimizer != "sgd":
        raise UsageError("--algorithm mime-lite needs clients with plain SGD: add --optimizer sgd")
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
    if options.compress_up or options.compress_down:
        raise UsageError("--compress-up and --compress-down cannot be combined with --dp-clip-norm")
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

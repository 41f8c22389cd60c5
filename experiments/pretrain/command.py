"""`w2v-jax pretrain`: federated or centralised pre-training on recorded or synthetic speech."""

import contextlib
from pathlib import Path
from typing import Any

from experiments.costs import memory_budget
from experiments.options import arguments
from experiments.pretrain.options import CENTRALISED, PretrainArguments
from experiments.pretrain.recipes import RECIPES
from experiments.pretrain.settings import ABSENT_SETTINGS, Settings, resolve
from experiments.process import xla_flags
from experiments.process.distributed import join_processes
from experiments.process.provenance import record_provenance
from experiments.runs import tracking
from w2v_jax import memory_methods

__all__ = ["ABSENT_SETTINGS", "PretrainArguments", "default_folder", "main", "resolve"]


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(PretrainArguments, argv, "w2v-jax pretrain")
    settings = resolve(options)
    tracking.check_installed(options.track)
    lanes = None
    if settings["preset"] != CENTRALISED:
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
    from experiments.pretrain import federation
    from experiments.pretrain.run import Pretraining
    from experiments.runs.folder import RunFolder, continuing_after_disk_errors

    if settings["preset"] != CENTRALISED:
        federation.algorithm(Settings(**settings))  # refuses what is wrong before the folder is made
    # These follow from others or from the data, or were other ones in older versions: a folder keeps its own.
    follow = [name for name in ("evaluate_every", "crop_seconds") if getattr(options, name) is None]
    keeps = ("loss_window", *follow)
    with continuing_after_disk_errors():
        provenance = record_provenance("pretrain", settings["seed"])
        folder = RunFolder(
            out,
            settings,
            provenance,
            absent=ABSENT_SETTINGS,
            writes=first,
            keeps=keeps,
            may_grow="rounds",
            track=options.track,
        )
        with contextlib.closing(folder):
            Pretraining(folder.settings, folder).run()


def default_folder(settings: dict[str, Any]) -> Path:
    """Name the run folder runs/<preset>-<model>[-<algorithm or aggregation>][-<corruption>]."""
    parts = [settings["preset"], settings["model"]]
    if settings["preset"] != CENTRALISED:
        algorithm = settings["algorithm"].rpartition(":")[2]
        parts.append(settings["aggregation"] if algorithm == "fedavg" else algorithm)
    if settings["corruption"] != "none":
        parts.append(settings["corruption"])
    return Path("runs") / "-".join(parts)


def kept_method(out: Path) -> str | None:
    """Read the method of a run that exists already, and print that it continues; None without such a run."""
    from experiments.runs.folder import read_config

    if not (out / "config.json").exists():
        return None
    method = read_config(out)["settings"].get("method", memory_methods.PLAIN)
    print(f"{out} holds a run with method {method}, which continues", flush=True)
    return method


def pick(settings: dict[str, Any], budget: str, lanes: int) -> str:
    """Pick the method that fits into a memory budget, and print it.

    Beside a step's plan for each client that trains at the time, a process holds the server's parameters and
    each lane's sum of updates. Plans are compiled in another process.

    Raises:
        UsageError: no method fits.
    """
    step = {
        "model": settings["model"],
        "seconds": settings["crop_seconds"] or RECIPES[settings["model"]].crop_seconds,
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

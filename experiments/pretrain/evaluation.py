"""Evaluate a model on clips without noise (fixed crops, keys and order), and when a run is due for it."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.pretrain import recipes
from experiments.pretrain.settings import Settings
from experiments.process.files import write_json
from fed.keys import evaluation_key
from fed.placement import fetch
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import evaluation_batches
from w2v_jax.data.common_voice import Utterance
from w2v_jax.errors import UserError
from w2v_jax.objective.pretraining import Objective


class Evaluator:
    """Evaluates models on one device of this process."""

    def __init__(self, objective: Objective, seed: int):
        self._objective = objective
        self._evaluate = jax.jit(objective.evaluate)
        self._seed = seed

    def __call__(self, parameters: Any, state: Any, clips: Sequence[Utterance]) -> dict[str, float]:
        """Compute the objective's metrics over clips.

        Args:
            parameters: the parameters of the model, on any devices.
            state: the objective's state.

        Raises:
            UserError: there are no clips.
        """
        parameters, state = jax.device_put(fetch((parameters, state)), jax.local_devices()[0])
        key = evaluation_key(self._seed)
        total = None
        for batch in evaluation_batches(
            clips,
            batch_size=recipes.EVALUATION_BATCH_SIZE,
            crop_samples=round(recipes.EVALUATION_CROP_SECONDS * SAMPLE_RATE_HZ),
        ):
            sums = self._evaluate(parameters, state, batch, key)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        if total is None:
            raise UserError("no held-out clips can be used: ask for more --heldout-speakers")
        return self._objective.summarise(jax.device_get(total))


def evaluations(
    settings: Settings,
    heldout: Callable[[Any, Any], dict[str, float]],
    probe: Callable[[Any], float] | None,
    round_index: int,
    state: Any,
) -> dict[str, Any]:
    """Make the columns of a round's held-out evaluation and of its probe, where they are due.

    Args:
        settings: of the run; they say what is due.
        heldout: (parameters, objective state) -> metrics over the held-out clips.
        probe: parameters -> accuracy of the probe; None without probes.
        round_index: rounds finished.
        state: after the round.
    """
    started = time.perf_counter()
    line: dict[str, Any] = {}
    if settings.is_due(settings.evaluate_every, round_index):
        held = heldout(state.parameters, state.objective_state)
        line |= {f"heldout_{name}": value for name, value in held.items()}
        line["chance_accuracy"] = held["chance_accuracy"]
    if probe is not None and settings.is_due(settings.probe_every, round_index):
        line["probe_accuracy"] = probe(state.parameters)
    if line:
        line["evaluation_seconds"] = time.perf_counter() - started
    return line


def write_untrained(
    folder: Path,
    heldout: Callable[[Any, Any], dict[str, float]],
    probe: Callable[[Any], float] | None,
    latest: int | None,
    state: Any,
) -> None:
    """Evaluate the model before its first round, and write untrained.json; once in a run.

    Args:
        folder: the run folder.
        heldout, probe: as for `evaluations`.
        latest: the round that the run continues after; None for a new run.
        state: before the first round.

    Raises:
        UserError: a run that continues lacks the file.
    """
    path = folder / "untrained.json"
    if path.exists():
        return
    if latest is not None:
        raise UserError(f"{folder} lacks untrained.json: it is not a whole run; choose another --out")
    found = heldout(state.parameters, state.objective_state)
    if probe is not None:
        found["probe_accuracy"] = probe(state.parameters)
    write_json(path, found)

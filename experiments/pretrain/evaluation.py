"""Evaluate a model on clips without noise (fixed crops, keys and order), and when a run is due for it."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments.pretrain import recipes
from experiments.process.files import write_json
from fed.keys import evaluation_key
from fed.placement import fetch
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import evaluation_batches
from w2v_jax.data.common_voice import Utterance
from w2v_jax.errors import UserError
from w2v_jax.objective.pretraining import Objective

if TYPE_CHECKING:
    from experiments.pretrain.rounds import RoundLog
    from experiments.pretrain.run import Pretraining


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


def evaluations(run: "Pretraining", log: "RoundLog") -> dict[str, Any]:
    """Make the columns of a round's held-out evaluation and of its probe, where they are due."""
    settings, parameters, started = run.settings, log.state.parameters, time.perf_counter()
    line: dict[str, Any] = {}
    if log.diverged:
        return line
    if settings.is_due(settings.evaluate_every, log.round_index):
        held = run.evaluate(parameters, log.state.objective_state, run.data.split.heldout)
        line |= {f"heldout_{name}": value for name, value in held.items()}
        line["chance_accuracy"] = held["chance_accuracy"]
    if run.probe is not None and settings.is_due(settings.probe_every, log.round_index):
        line["probe_accuracy"] = run.probe(parameters)
    if line:
        line["evaluation_seconds"] = time.perf_counter() - started
    return line


def write_untrained(run: "Pretraining", latest: int | None, state: Any) -> None:
    """Evaluate the model before its first round, and write untrained.json; once in a run.

    Raises:
        UserError: a run that continues lacks the file.
    """
    path = run.folder.path / "untrained.json"
    if path.exists():
        return
    if latest is not None:
        raise UserError(f"{path.parent} lacks untrained.json: it is not a whole run; choose another --out")
    found = run.evaluate(state.parameters, state.objective_state, run.data.split.heldout)
    if run.probe is not None:
        found["probe_accuracy"] = run.probe(state.parameters)
    write_json(path, found)

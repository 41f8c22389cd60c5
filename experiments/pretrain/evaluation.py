"""Evaluate a model on clips without noise: fixed crops, keys and order."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.pretrain import recipes
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

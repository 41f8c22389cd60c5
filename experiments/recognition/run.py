"""Central fine-tuning: labelled speech -> updates -> best checkpoint -> scores."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.process.files import read_json
from experiments.process.progress import stage
from experiments.recognition import time_budget
from experiments.recognition.schedule import learning_rates
from experiments.recognition.task import or_infinite
from experiments.recognition.training_run import DATA, FineTuningRun
from experiments.runs.metric_columns import with_pace
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches import pipeline
from w2v_jax.errors import DIVERGED, UserError
from w2v_jax.recognition.training import NewBob, TrainingState, make_statistics_update

# Training batches that estimate the running statistics before a validation; older values keep a weight of
# 0.9^40, under 2 %.
STATISTICS_BATCHES = 40


class Finetuning(FineTuningRun):
    """Carries a central run through: one model on all training clips."""

    @functools.cached_property
    def _update_statistics(self) -> Callable:
        return jax.jit(make_statistics_update(self.task.objective))

    def _steps_per_epoch(self) -> int:
        """Count the batches that go once through the training clips."""
        return self.train_batches.steps_per_epoch

    def _planned_updates(self) -> int:
        """Choose the updates of the run."""
        if self.settings["minutes"] is not None:
            return self._updates_of_minutes()
        return self.settings["updates"] or self._updates_of_recipe()

    def _evaluate_every(self, updates: int) -> int:
        """Choose the updates between validations of a run of so many updates."""
        most = max(self.steps_per_epoch, -(-updates // self.recipe.most_validations))
        if self.settings["minutes"] is not None:
            most = min(most, -(-updates // time_budget.FEWEST_VALIDATIONS))
        return self.settings["evaluate_every"] or most

    def _updates_of_minutes(self) -> int:
        """Measure the pace, and plan the updates that fit; a run that continues keeps its plan."""
        minutes = self.settings["minutes"]
        if (held := self.folder.path / DATA).exists():
            updates = read_json(held)["updates"]
            print(time_budget.planned_before(minutes, updates), flush=True)
            return updates
        key = jax.random.key(self.settings["seed"])
        state = self._initial(key)
        rates = dict.fromkeys(("encoder", "head"), np.float32(0))

        def update(batch: Any) -> Any:
            return self.update(jax.tree.map(jnp.copy, state), batch, key, rates)

        def validate() -> None:
            statistics = self._statistics(state, key, STATISTICS_BATCHES - 1)
            self.task.validate(state._replace(statistics=statistics))

        stage("compiling, and measuring the pace")
        pace = time_budget.measure(self.train_batches, update, validate)
        planned = time_budget.updates_that_fit(minutes, pace, self._evaluate_every)
        print(time_budget.described(minutes, pace, planned), flush=True)
        self.measured = True
        return planned

    def _train(
        self, state: Any, key: Any, done: int, lines: list[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], Any, float]]:
        newbob, deadline = NewBob(), time_budget.Deadline(self.settings["minutes"])
        for line in lines:
            newbob.observe(or_infinite(line["dev_loss"]))
        stream = pipeline.stream(self.train_batches, first_step=done, num_steps=self.updates)
        total, started, trained, slots, compiling = None, time.perf_counter(), done, 0, 0.0
        shapes: set[tuple[int, ...]] = set()
        for step in range(done, self.updates):
            rates = learning_rates(self.settings, self.recipe, step, self.updates, newbob)
            batch = next(stream)
            slots += batch.waveform.size
            self.rate_share.add(batch)
            called, update_key = time.perf_counter(), jax.random.fold_in(key, step)
            state, sums = self.update(state, batch, update_key, rates)
            if batch.waveform.shape not in shapes:  # the call returns once its program is compiled
                compiling += time.perf_counter() - called
                shapes.add(batch.waveform.shape)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            over = deadline.passed()
            if (step + 1) % self.evaluate_every and step + 1 < self.updates and not over:
                continue
            sums = jax.device_get(total)
            train_seconds = time.perf_counter() - started
            skipped = int(sums["skipped"][0])
            if skipped == step + 1 - trained:
                raise UserError(
                    f"{DIVERGED} before update {step + 1}: gradients are no longer finite; lower "
                    "--encoder-learning-rate or --head-learning-rate and start in another --out"
                )
            started = time.perf_counter()
            state = state._replace(statistics=self._statistics(state, key, step))
            dev = self.task.validate(state)
            newbob.observe(dev["loss"])
            line = {
                "update": step + 1,
                "epoch": (step + 1) / self.steps_per_epoch,
                **self.task.objective.summarise(sums),
                "skipped_updates": skipped,
                **{f"{group}_learning_rate": float(rate) for group, rate in rates.items()},
                **{f"dev_{name}": value for name, value in dev.items()},
                "train_seconds": train_seconds,
                "evaluation_seconds": time.perf_counter() - started,
            }
            yield with_costs(self, line, slots), state, compiling
            if over:
                return
            total, started, trained, slots, compiling = None, time.perf_counter(), step + 1, 0, 0.0

    def _statistics(self, state: TrainingState, key: Any, step: int) -> Any:
        """Estimate the head's running statistics for the current parameters from the last batches."""
        statistics = state.statistics
        if not jax.tree.leaves(statistics):
            return statistics
        for earlier in range(max(0, step + 1 - STATISTICS_BATCHES), step + 1):
            batch = self.train_batches[earlier]
            statistics = self._update_statistics(
                state.parameters, statistics, batch, jax.random.fold_in(key, earlier)
            )
        return statistics


def with_costs(run: Finetuning, line: dict[str, Any], slots: int) -> dict[str, Any]:
    """Add to a line the share of its audio slots that taught nothing, its pace and its share of the rate.

    Args:
        run: the run.
        line: with its seconds of audio and of training.
        slots: samples that its batches have room for.
    """
    line |= {"padded_share": 1.0 - line["audio_seconds"] * SAMPLE_RATE_HZ / slots}
    return with_pace(line) | run.rate_share.columns(line["train_seconds"])

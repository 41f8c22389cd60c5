"""A fine-tuning run: labelled speech -> updates -> best checkpoint -> scores."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.costs.rate_share import RateShare, peak_rate
from experiments.doctor import healthy_ranges
from experiments.models import encoders
from experiments.process.files import read_json
from experiments.process.progress import Progress, stage
from experiments.recognition import recipes, time_budget
from experiments.recognition.keyword_task import KeywordTask
from experiments.recognition.recognition_task import RecognitionTask
from experiments.recognition.schedule import learning_rates
from experiments.recognition.task import FineTuningTask, or_infinite
from experiments.report.units import by_reason
from experiments.runs.folder import RunFolder, read_metrics
from experiments.runs.metric_columns import pace_text, with_pace
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.batches import pipeline
from w2v_jax.errors import DIVERGED, UserError
from w2v_jax.model.convolutions import form_for_clients
from w2v_jax.recognition.training import (
    NewBob,
    TrainingState,
    initial_state,
    make_optimizer,
    make_statistics_update,
    make_update,
)

TASKS = {"recognition": RecognitionTask, "keywords": KeywordTask}
# Training batches that estimate the running statistics before a validation; older values keep a weight of
# 0.9^40, under 2 %.
STATISTICS_BATCHES = 40
DATA = "data.json"


def model_of(settings: dict[str, Any], config: ModelConfig) -> ModelConfig:
    """Build the model configuration that a run computes with.

    Group normalisation runs over valid frames alone: a transcript must not depend on the other
    clips of its batch.
    """
    dropout = settings["dropout"]
    changes = {} if dropout is None else {"dropout": dropout, "activation_dropout": dropout}
    return config.replace(
        compute_dtype="bfloat16" if settings["precision"] == "bf16" else "float32",
        masked_group_norm=True,
        convolution_form=form_for_clients(1),
        **changes,
    )


class Finetuning:
    """Builds a run from its settings and carries it through, from a checkpoint if there is one."""

    def __init__(self, settings: dict[str, Any], folder: RunFolder):
        self.settings, self.folder = settings, folder
        self.source = encoders.load(settings["init"], settings["model"])
        named = encoders.recipe_of(self.source, folder.path)
        self.recipe = recipes.RECIPES[settings["task"]][named]
        self.model = model_of(settings, self.source.config)
        _check_freeze(settings, self.model)
        self.task: FineTuningTask = TASKS[settings["task"]](settings, self.model, self.recipe)
        self.train_batches = self.task.train
        self.optimizer = make_optimizer(settings["head_optimizer"], settings["clip_norm"])
        self._update_statistics = jax.jit(make_statistics_update(self.task.objective))
        self._update = jax.jit(make_update(self.task.objective, self.optimizer), donate_argnums=(0,))
        self.rate_share = RateShare(lambda: self.task.objective, peak_rate(settings["precision"], devices=1))
        self.measured = False  # whether everything is compiled before the first update
        self.updates = settings["updates"] or (
            self._updates_of_minutes()
            if settings["minutes"] is not None
            else max(self.recipe.epochs * self.train_batches.steps_per_epoch, self.recipe.fewest_updates)
        )
        self.evaluate_every = self._evaluate_every(self.updates)
        self._begin()

    def _evaluate_every(self, updates: int) -> int:
        """Choose the updates between validations of a run of so many updates."""
        most = max(self.train_batches.steps_per_epoch, -(-updates // self.recipe.most_validations))
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
            return self._update(jax.tree.map(jnp.copy, state), batch, key, rates)

        def validate() -> None:
            statistics = self._statistics(state, key, STATISTICS_BATCHES - 1)
            self.task.validate(state._replace(statistics=statistics))

        stage("compiling, and measuring the pace")
        pace = time_budget.measure(self.train_batches, update, validate)
        planned = time_budget.updates_that_fit(minutes, pace, self._evaluate_every)
        print(time_budget.described(minutes, pace, planned), flush=True)
        self.measured = True
        return planned

    def _initial(self, key: Any) -> TrainingState:
        """Make the state before the first update, with the encoder of `--init`."""
        state = jax.jit(lambda k: initial_state(self.task.objective, self.optimizer, k))(key)
        if self.source.parameters is None:
            return state
        encoder = jax.tree.map(jnp.asarray, self.source.parameters)
        return state._replace(parameters={**state.parameters, "encoder": encoder})

    def _begin(self) -> None:
        self.folder.begin()
        self.folder.pin(encoders.ENCODER_FILE, self.source.description, encoders.ADDED)
        for note in self.source.notes:
            print(note, flush=True)
        self.data = {
            **{split: held.summary() for split, held in self.task.splits.items()},
            **self.task.facts(),
            "updates": self.updates,
            "steps_per_epoch": self.train_batches.steps_per_epoch,
            "evaluate_every": self.evaluate_every,
        }
        self.folder.pin(DATA, self.data, added=("changed",))
        self.task.pin(self.folder)

    def run(self) -> None:
        """Train to the end, from the newest checkpoint on; score the best one; write the report."""
        path = self.folder.path
        checkpoints, best = Checkpoints(path / "checkpoints"), Checkpoints(path / "best", keep=1)
        key = jax.random.key(self.settings["seed"])
        state = self._initial(key)
        done = checkpoints.latest() or 0
        if done:
            state = TrainingState(**checkpoints.restore(done, state._asdict()))
        self.folder.rewind(done, "update")
        lines = read_metrics(self.folder.metrics_path)
        if lines and self.task.best(lines)["update"] == done != best.latest():
            best.save(done, _scored(state))
        with Progress(self.updates, done, "update", compiled=self.measured) as progress:
            for note in filter(None, (described(self, done), self.rate_share.note)):
                progress.note(note)
            if changed := _changed(self.task):
                progress.note(f"changed: {changed} (counted in {path / DATA})")
            for line, trained, compiling in self._train(state, key, done, lines):
                state = trained
                self.folder.append(line)
                lines.append(line)
                checkpoints.save(line["update"], state._asdict())
                if self.task.best(lines) is line:
                    best.save(line["update"], _scored(state))
                progress.report(line["update"], told(self, line), line["train_seconds"], compiling)
            if lines[-1]["update"] < self.updates:
                progress.note(
                    f"stopped after update {lines[-1]['update']} of {self.updates}: the "
                    f"{self.settings['minutes']:g} minutes are over, since updates became slower; the same "
                    "command continues for as many minutes again"
                )
        checkpoints.close()
        chosen = self.task.best(lines)
        state = state._replace(**best.restore(chosen["update"], _scored(state)))
        best.close()
        self.task.finish(self.folder, state, lines)

    def _train(self, state: TrainingState, key: Any, done: int, lines: list[dict[str, Any]]):
        """Train; yield a line of metrics, the state and the seconds of compiling at every validation."""
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
            state, sums = self._update(state, batch, update_key, rates)
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
                "epoch": (step + 1) / self.train_batches.steps_per_epoch,
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


def told(run: Finetuning, line: dict[str, Any]) -> str:
    """Describe a validation for the log."""
    good = healthy_ranges.of_validation(run.settings, line, run.data)
    return (
        f"epoch {line['epoch']:.1f}  loss {line['loss']:.3f}  validation loss {line['dev_loss']:.3f}  "
        f"{run.task.told(line)}{f' ({good})' if good else ''}  {', '.join(pace_text(line))}"
    )


def described(run: Finetuning, done: int) -> str:
    """Describe a run that continues after update `done`, or begins, in one line."""
    shapes = jax.eval_shape(run.task.objective.init, jax.random.key(0))[0]
    counts = {
        group: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(held))
        for group, held in shapes.items()
    }
    train = run.task.splits["train"]
    start = f", continuing after update {done}" if done else ""
    return (
        f"{run.settings['features']} from {run.settings['init']}, {counts['encoder']:,} parameters and "
        f"{counts['head']:,} in the head; {len(train.clips)} clips of {train.seconds / 60:.1f} min, "
        f"{run.train_batches.steps_per_epoch} updates an epoch; "
        f"{run.task.described()}{start}"
    )


def _changed(task: FineTuningTask) -> str:
    """Count the clips of each split that were changed, by reason; empty if none was."""
    held = task.splits.items()
    return "; ".join(f"{by_reason(clips.changed)} in {split}" for split, clips in held if clips.changed)


def _scored(state: TrainingState) -> dict[str, Any]:
    """The part of a training state that scoring needs."""
    return {"parameters": state.parameters, "statistics": state.statistics}


def _check_freeze(settings: dict[str, Any], model: ModelConfig) -> None:
    """Refuse to freeze convolutions that an encoder lacks."""
    frozen = settings["features"] == "encoder" and settings["freeze"] == "feature-encoder"
    if frozen and not model.conv_channels:
        raise UserError(
            "--freeze feature-encoder has no meaning for an encoder on log-mel input, which has no "
            "convolutions: leave it out"
        )

"""The parts that all fine-tuning runs share: the folder, checkpoints, the best model and its scores."""

import abc
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.costs.rate_share import RateShare, peak_rate
from experiments.doctor import healthy_ranges
from experiments.models import encoders
from experiments.process.progress import Progress
from experiments.recognition import recipes
from experiments.recognition.clients.labelled_clients import clients_of
from experiments.recognition.clients.personalisation import personalised
from experiments.recognition.keyword_task import KeywordTask
from experiments.recognition.opening import changed, check_freeze, described, model_of
from experiments.recognition.recognition_task import RecognitionTask
from experiments.recognition.task import FineTuningTask
from experiments.runs.folder import RunFolder, read_metrics
from experiments.runs.metric_columns import pace_text
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.recognition.training import (
    TrainingState,
    initial_state,
    make_optimizer,
    make_update,
)

TASKS = {"recognition": RecognitionTask, "keywords": KeywordTask}
DATA = "data.json"


class FineTuningRun(abc.ABC):
    """Builds a run from its settings and carries it through, from a checkpoint if there is one.

    A kind of run says how many updates it has and when it validates, and trains in `_train`.
    """

    def __init__(self, settings: dict[str, Any], folder: RunFolder):
        self.settings, self.folder = settings, folder
        self.source = encoders.load(settings["init"], settings["model"])
        named = encoders.recipe_of(self.source, folder.path)
        self.recipe = recipes.RECIPES[settings["task"]][named]
        self.model = model_of(settings, self.source.config)
        check_freeze(settings, self.model)
        self.task: FineTuningTask = TASKS[settings["task"]](settings, self.model, self.recipe)
        self.train_batches = self.task.train
        self.clients = clients_of(self.task, settings)
        self.steps_per_epoch = self._steps_per_epoch()
        self.optimizer = make_optimizer(settings["head_optimizer"], settings["clip_norm"])
        self.update = jax.jit(make_update(self.task.objective, self.optimizer), donate_argnums=(0,))
        self.rate_share = RateShare(lambda: self.task.objective, peak_rate(settings["precision"], devices=1))
        self.measured = False  # whether everything is compiled before the first update
        self.updates = self._planned_updates()
        self.evaluate_every = self._evaluate_every(self.updates)
        self._begin()

    @abc.abstractmethod
    def _steps_per_epoch(self) -> int:
        """Count the batches that go once through the training clips."""

    @abc.abstractmethod
    def _planned_updates(self) -> int:
        """Choose the updates of the run."""

    @abc.abstractmethod
    def _evaluate_every(self, updates: int) -> int:
        """Choose the updates between validations of a run of so many updates."""

    @abc.abstractmethod
    def _train(
        self, state: Any, key: Any, done: int, lines: list[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], Any, float]]:
        """Train; yield a line of metrics, the state and the seconds of compiling at every validation."""

    def _updates_of_recipe(self) -> int:
        """Count the updates of a run that no option limits."""
        return max(self.recipe.epochs * self.steps_per_epoch, self.recipe.fewest_updates)

    def _initial(self, key: Any) -> Any:
        """Make the state before the first update, with the encoder of `--init`."""
        return self._begun(key)

    def _begun(self, key: Any) -> TrainingState:
        """Make the parameters and statistics before the first update, with the encoder of `--init`."""
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
            **self._facts(),
            "updates": self.updates,
            "steps_per_epoch": self.steps_per_epoch,
            "evaluate_every": self.evaluate_every,
        }
        self.folder.pin(DATA, self.data, added=("changed",))
        self.task.pin(self.folder)

    def _facts(self) -> dict[str, Any]:
        """Collect what data.json says of clients."""
        return {}

    def scored(self, state: Any) -> TrainingState:
        """Select the part of the run's state that scoring needs, without the state of an optimizer."""
        return TrainingState(state.parameters, state.statistics, ())

    def _save(self, checkpoints: Checkpoints, update: int, state: Any) -> None:
        """Write a checkpoint from which the same command continues."""
        checkpoints.save(update, state._asdict())

    def run(self) -> None:
        """Train to the end, from the newest checkpoint on; score the best one; write the report."""
        path = self.folder.path
        checkpoints, best = Checkpoints(path / "checkpoints"), Checkpoints(path / "best", keep=1)
        key = jax.random.key(self.settings["seed"])
        state = self._initial(key)
        done = checkpoints.latest() or 0
        if done:
            state = type(state)(**checkpoints.restore(done, state._asdict()))
        self.folder.rewind(done, "update")
        lines = read_metrics(self.folder.metrics_path)
        if lines and self.task.best(lines)["update"] == done != best.latest():
            best.save(done, _arrays(self.scored(state)))
        with Progress(self.updates, done, "update", compiled=self.measured) as progress:
            for note in filter(None, (described(self, done), self.rate_share.note)):
                progress.note(note)
            if held := changed(self.task):
                progress.note(f"changed: {held} (counted in {path / DATA})")
            for line, trained, compiling in self._train(state, key, done, lines):
                state = trained
                self.folder.append(line)
                lines.append(line)
                self._save(checkpoints, line["update"], state)
                if self.task.best(lines) is line:
                    best.save(line["update"], _arrays(self.scored(state)))
                progress.report(line["update"], told(self, line), line["train_seconds"], compiling)
            if lines[-1]["update"] < self.updates:
                progress.note(
                    f"stopped after update {lines[-1]['update']} of {self.updates}: the "
                    f"{self.settings['minutes']:g} minutes are over, since updates became slower; the same "
                    "command continues for as many minutes again"
                )
        checkpoints.close()
        chosen = self.task.best(lines)
        final = self.scored(state)
        final = final._replace(**best.restore(chosen["update"], _arrays(final)))
        best.close()
        self.task.finish(self.folder, final, lines, personalised(self, final))


def told(run: FineTuningRun, line: dict[str, Any]) -> str:
    """Describe a validation for the log."""
    good = healthy_ranges.of_validation(run.settings, line, run.data)
    return (
        f"epoch {line['epoch']:.1f}  loss {line['loss']:.3f}  validation loss {line['dev_loss']:.3f}  "
        f"{run.task.told(line)}{f' ({good})' if good else ''}  {', '.join(pace_text(line))}"
    )


def _arrays(state: TrainingState) -> dict[str, Any]:
    """Make the content of a checkpoint in `best/`."""
    return {"parameters": state.parameters, "statistics": state.statistics}

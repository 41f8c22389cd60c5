"""A fine-tuning run: transcribed speech -> updates -> best checkpoint -> error rates."""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.models import encoders
from experiments.process.progress import Progress
from experiments.recognition import labelled_splits, recipes
from experiments.recognition.results import finish
from experiments.recognition.schedule import learning_rates
from experiments.recognition.scoring import LONGEST_WHOLE_SECONDS, Recognised, Scorer
from experiments.report.units import by_reason
from experiments.runs.folder import RunFolder, read_metrics
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import ModelConfig
from w2v_jax.data.batches import pipeline
from w2v_jax.errors import DIVERGED, UserError
from w2v_jax.model.convolutions import form_for_clients
from w2v_jax.recognition.ctc import RecognizerConfig, recognizer
from w2v_jax.recognition.heads import HeadConfig
from w2v_jax.recognition.training import (
    NewBob,
    TrainingState,
    initial_state,
    make_optimizer,
    make_statistics_update,
    make_update,
)
from w2v_jax.recognition.windows import FRAME_SAMPLES
from w2v_jax.text.rules import DOTLESS, TextRules
from w2v_jax.text.storage import save_tokenizer

MAX_VALIDATIONS = 50
# Training batches that estimate the running statistics before a validation; older values keep a weight of
# 0.9^40, under 2 %.
STATISTICS_BATCHES = 40


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


def frame_samples(features: str, model: ModelConfig) -> int:
    """Count the samples between the frames that are recognised."""
    return FRAME_SAMPLES if features == "log-mel" else model.frame_samples


class Finetuning:
    """Builds a run from its settings and carries it through, from a checkpoint if there is one."""

    def __init__(self, settings: dict[str, Any], folder: RunFolder):
        self.settings, self.folder = settings, folder
        self.source = encoders.load(settings["init"], settings["model"])
        self.recipe = recipes.FINE_TUNING[encoders.recipe_of(self.source, folder.path)]
        rules = TextRules(
            accents=settings["accents"], apostrophes=settings["apostrophes"], language=settings["language"]
        )
        self.model = model_of(settings, self.source.config)
        self.splits = labelled_splits.load(
            settings,
            rules,
            self.recipe,
            self.model.receptive_field_samples,
            frame_samples(settings["features"], self.model),
        )
        self.train_batches, self.tokenizer = self.splits.train, self.splits.tokenizer
        self.config = RecognizerConfig(
            model=self.model,
            head=HeadConfig(
                num_tokens=self.tokenizer.num_tokens,
                num_blocks=settings["head_blocks"],
                width=settings["head_width"] or self.recipe.head_width,
            ),
            features=settings["features"],
            frozen=settings["freeze"],
        )
        self.recognizer = recognizer(self.config)
        self.optimizer = make_optimizer(settings["head_optimizer"], settings["clip_norm"])
        self.updates = settings["updates"] or self.recipe.epochs * self.train_batches.steps_per_epoch
        self.evaluate_every = settings["evaluate_every"] or max(
            self.train_batches.steps_per_epoch, -(-self.updates // MAX_VALIDATIONS)
        )
        self._scorer = Scorer(self.recognizer, self.tokenizer, self.config.frame_samples)
        self._update_statistics = jax.jit(make_statistics_update(self.recognizer))
        self._begin(rules)

    def _begin(self, rules: TextRules) -> None:
        self.folder.begin()
        self.folder.pin(encoders.ENCODER_FILE, self.source.description, encoders.ADDED)
        for note in self.source.notes:
            print(note, flush=True)
        self.folder.pin(
            "data.json",
            {
                **{split: held.summary() for split, held in self.splits.transcribed.items()},
                "tokens": self.tokenizer.num_tokens,
                "characters_without_token": self.splits.unknown,
                "updates": self.updates,
                "steps_per_epoch": self.train_batches.steps_per_epoch,
                "evaluate_every": self.evaluate_every,
            },
            added=("changed",),
        )
        self.folder.pin("recognizer.json", dataclasses.asdict(self.config))
        save_tokenizer(self.folder.path, self.tokenizer, rules)

    def run(self) -> None:
        """Train to the end, from the newest checkpoint on; score the best one; write the report."""
        path = self.folder.path
        checkpoints, best = Checkpoints(path / "checkpoints"), Checkpoints(path / "best", keep=1)
        key = jax.random.key(self.settings["seed"])
        state = jax.jit(lambda k: initial_state(self.recognizer, self.optimizer, k))(key)
        if self.source.parameters is not None:
            encoder = jax.tree.map(jnp.asarray, self.source.parameters)
            state = state._replace(parameters={**state.parameters, "encoder": encoder})
        done = checkpoints.latest() or 0
        if done:
            state = TrainingState(**checkpoints.restore(done, state._asdict()))
        self.folder.rewind(done, "update")
        lines = read_metrics(self.folder.metrics_path)
        if lines and best_line(lines, self.settings["select_by"])["update"] == done != best.latest():
            best.save(done, _scored(state))
        with Progress(self.updates, done, "update") as progress:
            progress.note(self.describe(done))
            if changed := self._changed():
                progress.note(f"changed: {changed} (counted in {path / 'data.json'})")
            for line, trained in self._train(state, key, done, lines):
                state = trained
                self.folder.append(line)
                lines.append(line)
                checkpoints.save(line["update"], state._asdict())
                if best_line(lines, self.settings["select_by"]) is line:
                    best.save(line["update"], _scored(state))
                progress.report(line["update"], _text(line), line["train_seconds"])
        checkpoints.close()
        chosen = best_line(lines, self.settings["select_by"])
        state = state._replace(**best.restore(chosen["update"], _scored(state)))
        best.close()
        finish(self.folder, self.recognise("test", state), chosen, lines)

    def _train(self, state: TrainingState, key: Any, done: int, lines: list[dict[str, Any]]):
        """Train, and yield a line of metrics and the state at every validation."""
        update = jax.jit(make_update(self.recognizer, self.optimizer), donate_argnums=(0,))
        newbob = NewBob()
        for line in lines:
            newbob.observe(_number(line["dev_loss"]))
        stream = pipeline.stream(self.train_batches, first_step=done, num_steps=self.updates)
        total, started, trained = None, time.perf_counter(), done
        for step in range(done, self.updates):
            rates = learning_rates(self.settings, self.recipe, step, self.updates, newbob)
            batch = next(stream)
            state, sums = update(state, batch, jax.random.fold_in(key, step), rates)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            if (step + 1) % self.evaluate_every and step + 1 < self.updates:
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
            dev = self.recognise("dev", state).rates()
            newbob.observe(dev["loss"])
            summary = self.recognizer.objective.summarise(sums)
            yield (
                {
                    "update": step + 1,
                    "epoch": (step + 1) / self.train_batches.steps_per_epoch,
                    **summary,
                    "skipped_updates": skipped,
                    **{f"{group}_learning_rate": float(rate) for group, rate in rates.items()},
                    **{f"dev_{name}": dev[name] for name in ("loss", "wer", "cer", "empty_hypotheses")},
                    "train_seconds": train_seconds,
                    "evaluation_seconds": time.perf_counter() - started,
                },
                state,
            )
            total, started, trained = None, time.perf_counter(), step + 1

    def _statistics(self, state: TrainingState, key: Any, step: int) -> Any:
        """Estimate the head's running statistics for the current parameters from the last batches."""
        statistics = state.statistics
        for earlier in range(max(0, step + 1 - STATISTICS_BATCHES), step + 1):
            batch = self.train_batches[earlier]
            statistics = self._update_statistics(
                state.parameters, statistics, batch, jax.random.fold_in(key, earlier)
            )
        return statistics

    def recognise(self, split: str, state: TrainingState) -> Recognised:
        """Transcribe a split greedily, and score it."""
        return self._scorer.recognise(state, self.splits.evaluation[split], self.splits.transcribed[split])

    def describe(self, done: int) -> str:
        """Describe the run in one line."""
        shapes = jax.eval_shape(self.recognizer.objective.init, jax.random.key(0))[0]
        counts = {
            group: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(held))
            for group, held in shapes.items()
        }
        train = self.splits.transcribed["train"]
        start = f", continuing after update {done}" if done else ""
        return (
            f"{self.settings['features']} from {self.settings['init']}, {counts['encoder']:,} parameters and "
            f"{counts['head']:,} in the head; {len(train.clips)} clips of {train.seconds / 60:.1f} min, "
            f"{self.train_batches.steps_per_epoch} updates an epoch; "
            f"{self.tokenizer.num_tokens} tokens{self._told()}{start}"
        )

    def _changed(self) -> str:
        """Count the clips of each split that were changed, by reason; empty if none was."""
        held = self.splits.transcribed.items()
        return "; ".join(f"{by_reason(clips.changed)} in {split}" for split, clips in held if clips.changed)

    def _told(self) -> str:
        """Describe the assumed language and the clips that are read in windows, if any."""
        language = self.settings["language"]
        long = sum(len(clips.long) for clips in self.splits.evaluation.values())
        told = language.split("-")[0] in DOTLESS
        return f", letter case of {language} (--language)" * told + (
            f", {long} clips of over {LONGEST_WHOLE_SECONDS:.0f} s recognised in windows" * bool(long)
        )


def best_line(lines: list[dict[str, Any]], select_by: str) -> dict[str, Any]:
    """Find the validation with the lowest WER, CER or loss; the other two, then the order, break ties."""
    order = sorted(("wer", "cer", "loss"), key=lambda name: name != select_by)
    return min(lines, key=lambda line: tuple(_number(line[f"dev_{name}"]) for name in order))


def _number(value: float | None) -> float:
    """Read a value of a log, where null stands for a value that is not finite."""
    return float("inf") if value is None or not np.isfinite(value) else float(value)


def _scored(state: TrainingState) -> dict[str, Any]:
    """The part of a training state that transcription needs."""
    return {"parameters": state.parameters, "statistics": state.statistics}


def _text(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch']:.1f}  loss {line['loss']:.3f}  validation loss {line['dev_loss']:.3f}  "
        f"WER {100 * line['dev_wer']:.1f} %  CER {100 * line['dev_cer']:.1f} %"
    )

"""One fine-tuning run: transcribed speech -> updates -> the best checkpoint -> error rates."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import transcribed
from experiments.models import encoders
from experiments.process.files import write_json
from experiments.process.progress import Progress
from experiments.recognition import recipes
from experiments.recognition import report as finetuning_report
from experiments.recognition.scoring import Recognised, make_recognise, recognise
from experiments.runs.folder import RunFolder, read_metrics
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.batches import pipeline
from w2v_jax.data.batches.augmentation import NONE, Augmentation
from w2v_jax.data.batches.labelled import LabelledBatches
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
    tri_stage,
)
from w2v_jax.text.rules import TextRules
from w2v_jax.text.storage import save_tokenizer
from w2v_jax.text.tokenizers import CharacterTokenizer, Tokenizer, train_characters, train_pieces

MAX_VALIDATIONS = 50
# Training batches that the running statistics are estimated on before a validation: what they were
# before then weighs 0.9^40, under 2 %.
STATISTICS_BATCHES = 40
ADAM_HEAD_RATE = 1e-3


def model_of(settings: dict[str, Any], config: ModelConfig) -> ModelConfig:
    """The configuration that a run computes with.

    Group normalisation runs over valid frames alone: a transcript must not depend on what else is in
    its batch.
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
        self.recipe = recipes.FINE_TUNING[encoders.recipe_of(self.source, folder.path)]
        rules = TextRules(accents=settings["accents"], apostrophes=settings["apostrophes"])
        self.model = model_of(settings, self.source.config)
        self._load(rules)
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
        self._recognise = make_recognise(self.recognizer)
        self._update_statistics = jax.jit(make_statistics_update(self.recognizer))
        self._begin(rules)

    def _load(self, rules: TextRules) -> None:
        settings = self.settings
        self.splits = transcribed.load(
            settings["data"],
            rules,
            min_samples=self.model.receptive_field_samples,
            max_samples=round(settings["max_seconds"] * SAMPLE_RATE_HZ),
            seed=settings["seed"],
        )
        train = self.splits["train"]
        if settings["train_minutes"]:
            train = transcribed.within_minutes(train, settings["train_minutes"])
        self.tokenizer = self._make_tokenizer(train.texts)
        if settings["shuffle_transcripts"]:
            train = transcribed.shuffled(train, settings["seed"])
        self.splits["train"] = train
        batch_seconds = settings["batch_seconds"] or self.recipe.batch_seconds
        if batch_seconds < settings["max_seconds"]:
            raise UserError(
                f"batches of {batch_seconds:g} s cannot hold clips of --max-seconds "
                f"{settings['max_seconds']:g}: give a larger --batch-seconds"
            )
        batch_samples = round(batch_seconds * SAMPLE_RATE_HZ)
        self.unknown, made = {}, {}
        for split, held in self.splits.items():
            labels, self.unknown[split] = transcribed.labels_of(held, self.tokenizer)
            made[split] = LabelledBatches(
                held.clips,
                labels,
                batch_samples=batch_samples,
                num_buckets=self.recipe.buckets,
                identity=(settings["seed"],),
                augmentation=Augmentation() if split == "train" and settings["augment"] else NONE,
            )
        self.batches: dict[str, LabelledBatches] = made
        self.train_batches = made["train"]

    def _make_tokenizer(self, texts: list[str]) -> Tokenizer:
        settings = self.settings
        if settings["tokens"] == "pieces":
            return train_pieces(texts, settings["pieces"])
        if settings["alphabet"] is None:
            return train_characters(texts)
        tokenizer = CharacterTokenizer(settings["alphabet"] + " ")
        tokenizer.encode("".join(texts))  # all that it lacks at once
        return tokenizer

    def _begin(self, rules: TextRules) -> None:
        self.folder.begin()
        self.folder.pin(encoders.ENCODER_FILE, self.source.description, encoders.ADDED)
        for note in self.source.notes:
            print(note, flush=True)
        self.folder.pin(
            "data.json",
            {
                **{split: held.summary() for split, held in self.splits.items()},
                "tokens": self.tokenizer.num_tokens,
                "characters_without_token": self.unknown,
                "updates": self.updates,
                "steps_per_epoch": self.train_batches.steps_per_epoch,
                "evaluate_every": self.evaluate_every,
            },
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
            for line, trained in self._train(state, key, done, lines):
                state = trained
                self.folder.append(line)
                lines.append(line)
                checkpoints.save(line["update"], state._asdict())
                if best_line(lines, self.settings["select_by"]) is line:
                    best.save(line["update"], _scored(state))
                progress.report(line["update"], _text(line), line["train_seconds"])
        checkpoints.close()
        self._finish(state, best, lines)

    def _train(self, state: TrainingState, key: Any, done: int, lines: list[dict[str, Any]]):
        """(line of metrics, state) at every validation."""
        update = jax.jit(make_update(self.recognizer, self.optimizer), donate_argnums=(0,))
        newbob = NewBob()
        for line in lines:
            newbob.observe(_number(line["dev_loss"]))
        stream = pipeline.stream(self.train_batches, first_step=done, num_steps=self.updates)
        total, started, trained = None, time.perf_counter(), done
        for step in range(done, self.updates):
            rates = self.rates(step, newbob)
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
        """The head's running statistics for the parameters as they are, from the last training batches."""
        statistics = state.statistics
        for earlier in range(max(0, step + 1 - STATISTICS_BATCHES), step + 1):
            batch = self.train_batches[earlier]
            statistics = self._update_statistics(
                state.parameters, statistics, batch, jax.random.fold_in(key, earlier)
            )
        return statistics

    def rates(self, update: int, newbob: NewBob) -> dict[str, np.float32]:
        """Learning rates of an update, counted from 0."""
        settings = self.settings
        encoder, head = settings["encoder_learning_rate"], settings["head_learning_rate"]
        if encoder is None:
            encoder = self.recipe.encoder_learning_rate
        if head is None:
            adadelta = settings["head_optimizer"] == "adadelta"
            head = self.recipe.head_learning_rate if adadelta else ADAM_HEAD_RATE
        if settings["freeze"] == "encoder" or update < settings["head_only_updates"]:
            encoder = 0.0
        if settings["schedule"] == "newbob":
            scale = newbob.scales
        else:
            scale = dict.fromkeys(("encoder", "head"), tri_stage(update, self.updates))
        return {
            "encoder": np.float32(encoder * scale["encoder"]),
            "head": np.float32(head * scale["head"]),
        }

    def recognise(self, split: str, state: TrainingState) -> Recognised:
        """Greedy transcripts of a split, scored."""
        return recognise(
            self._recognise, self.recognizer, state, self.batches[split], self.splits[split], self.tokenizer
        )

    def describe(self, done: int) -> str:
        """One line about the run."""
        shapes = jax.eval_shape(self.recognizer.objective.init, jax.random.key(0))[0]
        counts = {
            group: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(held))
            for group, held in shapes.items()
        }
        train = self.splits["train"]
        start = f", continuing after update {done}" if done else ""
        return (
            f"{self.settings['features']} from {self.settings['init']}, {counts['encoder']:,} parameters and "
            f"{counts['head']:,} in the head; {len(train.clips)} clips of {train.seconds / 60:.1f} min, "
            f"{self.train_batches.steps_per_epoch} updates an epoch; "
            f"{self.tokenizer.num_tokens} tokens{start}"
        )

    def _finish(self, state: TrainingState, best: Checkpoints, lines: list[dict[str, Any]]) -> None:
        chosen = best_line(lines, self.settings["select_by"])
        held = best.restore(chosen["update"], _scored(state))
        best.close()
        state = state._replace(**held)
        test = self.recognise("test", state)
        result = {
            "test": test.rates(),
            "dev": {name: chosen[f"dev_{name}"] for name in ("wer", "cer", "loss")},
            "best_update": chosen["update"],
            "updates": self.updates,
            "audio_seconds": sum(line["audio_seconds"] for line in lines),
            "train_seconds": sum(line["train_seconds"] for line in lines),
            "per_speaker": test.by_speaker(),
            "worst": test.worst(),
            "provenance": self.folder.provenance,
        }
        paths = [clip.row.path for clip in test.transcribed.clips]
        finetuning_report.write_transcripts(self.folder.path, paths, test.transcribed.texts, test.hypotheses)
        write_json(self.folder.path / "results.json", result)
        finetuning_report.write(self.folder.path)
        rates = result["test"]
        print(f"test: WER {100 * rates['wer']:.1f} %, CER {100 * rates['cer']:.1f} %")
        print(f"report: {self.folder.path / 'report.html'}")


def best_line(lines: list[dict[str, Any]], select_by: str) -> dict[str, Any]:
    """The validation that is lowest in WER, CER or loss; ties go by the other two, then the earlier one."""
    order = sorted(("wer", "cer", "loss"), key=lambda name: name != select_by)
    return min(lines, key=lambda line: tuple(_number(line[f"dev_{name}"]) for name in order))


def _number(value: float | None) -> float:
    """A value of a log, where null stands for what is not finite."""
    return float("inf") if value is None or not np.isfinite(value) else float(value)


def _scored(state: TrainingState) -> dict[str, Any]:
    """What of a training state transcribes."""
    return {"parameters": state.parameters, "statistics": state.statistics}


def _text(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch']:.1f}  loss {line['loss']:.3f}  validation loss {line['dev_loss']:.3f}  "
        f"WER {100 * line['dev_wer']:.1f} %  CER {100 * line['dev_cer']:.1f} %"
    )

"""One pre-training run: from its settings to metrics, checkpoints and a report."""

import functools
import json
import math
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.doctor import healthy_ranges
from experiments.federated.algorithm import pin
from experiments.federated.kept_states import open_states, save_states
from experiments.models import encoders
from experiments.pretrain import clients, crops, federation, recipes, rounds
from experiments.pretrain import report as pretraining_report
from experiments.pretrain.best_checkpoint import BestCheckpoint
from experiments.pretrain.diagnostics import Diagnostics
from experiments.pretrain.evaluation import Evaluator, evaluations, write_untrained
from experiments.pretrain.opening_line import opening_line
from experiments.pretrain.rounds import RoundLog
from experiments.pretrain.settings import Settings, check_lengthening
from experiments.pretrain.training import choose_layout, local_training, model_config, rate_share
from experiments.probe import round_probe
from experiments.process.files import read_json
from experiments.process.progress import Progress
from experiments.report.units import by_reason
from experiments.runs.folder import DIAGNOSTICS, RunFolder
from experiments.runs.tasks import round_text, task_of, with_shares
from fed import centralised, chunks, server, simulation
from fed.cohort import RoundSettings
from fed.engine.blocks import Engine
from fed.keys import initial_key
from fed.placement import fetch, first_process_says, same_everywhere
from profiling import process_memory
from w2v_jax import memory_methods
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import ModelConfig
from w2v_jax.data.common_voice import Utterance, lengths
from w2v_jax.errors import UserError
from w2v_jax.model.convolutions import form_for_clients
from w2v_jax.objective.pretraining import Objective, pretraining_objective

LAYOUT = "layout.json"
STACKED = ("layers",)  # parameters of the transformer's layers have these on their leading axis


class Pretraining:
    """Builds a run from its settings and trains to its end, from the newest checkpoint if there is one."""

    def __init__(self, settings: Mapping[str, Any], folder: RunFolder):
        """Read the corpus and begin the folder.

        Args:
            settings: the fields of Settings.
            folder: where the run writes; open.
        """
        self.settings = held = Settings(**settings)
        self.folder = folder
        self.algorithm = None if held.centralised else federation.algorithm(held)
        self.task = task_of(settings)
        check_lengthening(held, folder.planned_before, folder.path)
        self.layout = choose_layout(held)
        self.config = model_config(held, self.layout.chunk)
        self.data = clients.load(held, self.config)
        self.settings, self.crop_notes = crops.settled(held, self.data, self.config)
        held = self.settings
        folder.settings["crop_seconds"] = held.crop_seconds
        self.work = clients.LocalWork(
            batch_size=held.batch_size,
            crop_samples=held.crop_samples,
            steps=held.local_steps,
            epochs=held.local_epochs,
            loss_window=held.loss_window,
        )
        self.source = clients.SpeechClients(self.data.clients, self.work, held.seed)
        plans = [self.source.plan(name, 0).num_steps for name in self.source.client_ids()]
        self.steps_per_round = max(plans)
        self._take_model(self.config)
        self.probe = round_probe.of_settings(held)
        self.rate_share, self.batch = rate_share(held, self.layout)
        self._heldout = functools.partial(self.evaluate, clips=self.data.split.heldout)
        self.privacy = None if held.centralised else federation.privacy(held, len(plans), STACKED)
        self.diagnostics = Diagnostics(
            self.evaluate, self.data.split.heldout, self.data.clients, self.data.corrupted, self.task
        )
        begin(self)

    def _take_model(self, config: ModelConfig) -> None:
        """Build the objective, the local training and the evaluation of a model."""
        self.config = config
        self.objective: Objective = pretraining_objective(config)
        self.training = local_training(self.settings, self.objective, self.steps_per_round)
        self._evaluator = Evaluator(self.objective, self.settings.seed)

    def run(self) -> None:
        """Train to the end, from the newest checkpoint on, and write the report."""
        settings, path = self.settings, self.folder.path
        checkpoints = Checkpoints(path / "checkpoints", keep=settings.keep_checkpoints)
        latest, state = start(self, checkpoints)
        self.folder.rewind(latest or 0)
        self.states = (
            None
            if settings.centralised
            else open_states(
                self.round_settings(),
                state.parameters,
                path,
                on_disk=settings.client_states == "disk",
                writes=self.folder.writes,
                latest=latest or 0,
            )
        )
        best = BestCheckpoint(path, settings.keep_best)
        best.resume(latest, state)
        if self.folder.writes:
            write_untrained(path, self._heldout, self.probe, latest, state)
        spares = settings.method != memory_methods.PLAIN
        with Progress(settings.rounds, latest or 0, quiet=not self.folder.writes) as progress:
            for note in notes(self, latest):
                progress.note(note)
            started = time.perf_counter()
            for log in self._rounds(state):
                line = self._line(log, time.perf_counter() - started)
                if log.diagnosed is not None:
                    self.folder.append(self.diagnostics.line(log.diagnosed), DIAGNOSTICS)
                self.folder.append(line)
                if log.diverged:
                    end_diverged(log, checkpoints)
                is_best = best.is_best(line)
                if is_best or settings.is_due(settings.checkpoint_every, log.round_index):
                    save_states(self.states, checkpoints)
                    checkpoints.save(log.round_index, log.state)
                if is_best:
                    best.save(log.round_index, log.state)
                said = round_text(line, self.task, healthy_ranges.of_round(self.folder.settings, line))
                progress.report(log.round_index, said, line["round_seconds"])
                if log.warning:
                    progress.note(log.warning)
                if spares:
                    process_memory.give_back()  # what compilations left behind
                    spares = False
                started = time.perf_counter()
        checkpoints.close()
        best.close()
        if self.folder.writes:
            pretraining_report.write(path)
            print(f"report: {path / 'report.html'}")

    def round_settings(self) -> RoundSettings:
        """Build the settings of the federated rounds."""
        assert self.algorithm is not None
        return RoundSettings(
            self.training,
            self.algorithm,
            self.layout,
            self.settings.max_update_norm or math.inf,
            self.privacy,
        )

    def _settle_chunk(self, state: Any) -> None:
        """Take the chunk that this run began with, or measure the fastest one and record it."""
        held = self.folder.path / LAYOUT
        kept = first_process_says(read_json(held)["chunk"] if held.exists() else 0)
        if kept:
            self.take_chunk(kept)
            return
        trials = chunk_trials(self, state)
        self.take_chunk(chunks.fastest(trials))
        self.folder.pin(LAYOUT, {**self.layout._asdict(), "trials": [trial._asdict() for trial in trials]})

    def take_chunk(self, chunk: int) -> None:
        """Build the model for `chunk` clients that are vmapped on one device."""
        self.layout = self.layout._replace(chunk=chunk)
        self._take_model(self.config.replace(convolution_form=form_for_clients(chunk)))

    def evaluate(self, parameters: Any, state: Any, clips: Sequence[Utterance]) -> dict[str, float]:
        """Compute a model's metrics over clips, without noise."""
        return self._evaluator(parameters, state, clips)

    def _rounds(self, state: Any) -> Iterator[RoundLog]:
        if self.settings.centralised:
            return rounds.central(
                self.settings,
                state,
                self.training,
                self.data.split.training,
                steps_per_stretch=self.steps_per_round,
                slot_seconds=self.source.slot_seconds(),
            )
        assert self.algorithm is not None
        return rounds.federated(
            self.settings,
            state,
            self.training,
            self.algorithm,
            self.source,
            self.layout,
            steps_per_round=self.steps_per_round,
            privacy=self.privacy,
            states=self.states,
            corrupted=self.data.corrupted,
        )

    def _line(self, log: RoundLog, round_seconds: float) -> dict[str, Any]:
        """Make a line of metrics.jsonl; the held-out metrics are in those of evaluated rounds."""
        line: dict[str, Any] = {"round": log.round_index}
        line |= self.objective.summarise(log.sums) | log.columns
        line["updates"] = log.round_index * self.steps_per_round
        line["round_seconds"] = round_seconds
        self.rate_share.add(self.batch, line["local_steps"])
        line |= self.rate_share.columns(round_seconds)
        if self.privacy is not None and self.folder.writes:  # once is enough, and no part of the round
            line |= federation.privacy_spent(
                self.settings, self.privacy, len(self.data.clients), log.round_index
            )
        if not log.diverged:
            line |= evaluations(self.settings, self._heldout, self.probe, log.round_index, log.state)
        return with_shares(line, self.task)


def begin(run: Pretraining) -> None:
    """Make the folder this run's, once all processes have been found to agree."""
    held = [dict(vars(run.settings)), run.data.partition, lengths(run.data.corpus.clips).tolist()]
    if not same_everywhere(zlib.crc32(json.dumps(held, sort_keys=True).encode())):
        raise UserError(
            "the processes differ in their options or in the corpus that they read: start all with the "
            "same command and the same data"
        )
    run.folder.begin()
    if run.data.partition is not None:
        run.folder.pin("partition.json", run.data.partition)
    path = run.folder.path / "clips.json"
    former = read_json(path) if path.exists() else None
    run.folder.pin(path.name, run.data.record(run.settings.corruption, former), clients.ADDED)
    pin(run.folder, run.settings.algorithm)


def start(run: Pretraining, checkpoints: Checkpoints) -> tuple[int | None, Any]:
    """Make the state that training begins from: (round of the newest checkpoint, state)."""
    settings, key = run.settings, initial_key(run.settings.seed)
    if settings.centralised:
        state: Any = jax.jit(lambda k: centralised.init(run.training, k))(key)
    else:
        assert run.algorithm is not None
        algorithm = run.algorithm
        state = jax.jit(lambda k: server.init(run.objective, algorithm, k))(key)
    if not settings.centralised and settings.chunk is None and jax.default_backend() != "cpu":
        run._settle_chunk(state)
    # Each of several processes reads into its own memory: the first round puts it on all devices.
    restored = checkpoints.restore_newest(fetch(state) if jax.process_count() > 1 else state)
    if restored is None:
        if settings.init is not None:
            state = state._replace(parameters=initial_parameters(run, settings.init, state.parameters))
        return None, state
    latest, state, damaged = restored
    for round_index, why in damaged.items() if run.folder.writes else ():
        print(f"checkpoint of round {round_index} is damaged ({why}): continuing from round {latest}")
    return latest, state


def initial_parameters(run: Pretraining, init: str, like: Any) -> Any:
    """Load the parameters that `--init` names; init.json records them, and whose settings are used."""
    source = encoders.load_pretraining(init)
    run.folder.pin("init.json", source.description, encoders.ADDED)
    for note in source.notes if run.folder.writes else ():
        print(note, flush=True)
    return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), like, source.parameters)


def end_diverged(log: RoundLog, checkpoints: Checkpoints) -> None:
    """Keep the last finite state of a run that diverged, and end it.

    Raises:
        UserError: always.
    """
    if log.round_index - 1 > (checkpoints.latest() or 0):
        checkpoints.save(log.round_index - 1, log.state)
    checkpoints.close()
    raise UserError(log.diverged or "")


def chunk_trials(run: Pretraining, state: Any) -> list[chunks.Trial]:
    """Measure how many clients to vmap on an accelerator.

    The measurement differs from time to time, and another chunk rounds results differently.
    """
    settings = run.settings

    def engine(chunk: int) -> Engine:
        run.take_chunk(chunk)
        batch = next(run.source.client_batches(run.source.client_ids()[0], 0))
        return simulation.build_engine(run.round_settings(), state, batch, run.steps_per_round)

    per_lane = -(-settings.clients_per_round // run.layout.lanes)
    memory = chunks.device_memory_bytes()
    return chunks.measure(engine, state, per_lane, run.steps_per_round, memory)


def notes(run: Pretraining, latest: int | None) -> list[str]:
    """Write the lines that a run begins with: what it is, changed clips, and what is left out."""
    changed = by_reason(run.data.corpus.changed_by_reason())
    shapes = jax.eval_shape(run.objective.init, jax.random.key(0))
    return [
        opening_line(
            run.settings,
            parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)),
            client_seconds=run.source.seconds(),
            steps_per_round=run.steps_per_round,
            heldout=run.data.split.described,
            skipped=len(run.data.corpus.skipped),
            latest=latest,
            planned_before=run.folder.planned_before,
        ),
        *run.crop_notes,
        *([f"changed: {changed} (listed in {run.folder.path / 'clips.json'})"] if changed else []),
        *(run.probe.notes if run.probe is not None else ()),
        *filter(None, [recipes.privacy_caveat(vars(run.settings)), run.rate_share.note]),
    ]

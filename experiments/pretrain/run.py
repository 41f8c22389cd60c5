"""One pre-training run: corpus -> clients -> rounds -> metrics, checkpoints and report."""

import dataclasses
import json
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import corruption, partitions, splits
from experiments.models import encoders
from experiments.pretrain import federation, recipes
from experiments.pretrain import report as pretraining_report
from experiments.pretrain.clients import LocalWork, SpeechClients, set_aside
from experiments.pretrain.diagnostics import Diagnostics
from experiments.process.files import read_json, write_json
from experiments.process.progress import Progress
from experiments.runs.folder import DIAGNOSTICS, RunFolder
from fed import aggregation, centralised, chunks, cohort, server, simulation
from fed.client import LocalTraining
from fed.keys import Draw, evaluation_key, initial_key
from fed.placement import fetch, first_process_says, same_everywhere
from fed.round import Engine
from profiling import process_memory
from w2v_jax import memory_methods, optim
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.batches import pipeline
from w2v_jax.data.batches.crops import CropBatches, evaluation_batches
from w2v_jax.data.common_voice import Utterance, column, lengths
from w2v_jax.errors import DIVERGED, UserError
from w2v_jax.model.convolutions import form_for_clients
from w2v_jax.objective.pretraining import pretraining_objective

LAYOUT = "layout.json"
STACKED = ("layers",)  # parameters of the transformer's layers have these on their leading axis


@dataclasses.dataclass(frozen=True)
class RoundLog:
    """What a round or a centralised stretch leaves for the log."""

    round_index: int
    state: Any
    sums: Any
    columns: dict[str, Any]
    diagnosed: simulation.RoundResult | None = None  # a round that kept its clients' models


class Pretraining:
    """Builds a run from its settings and carries it through, from a checkpoint if there is one."""

    def __init__(self, settings: dict[str, Any], folder: RunFolder):
        self.settings = settings
        self.folder = folder
        self.central = settings["preset"] == "centralised"
        self.layout = (
            cohort.Layout(1, 1)
            if self.central
            else cohort.choose_layout(
                settings["clients_per_round"],
                lanes=settings["lanes"],
                chunk=settings["chunk"],
                shards=settings["shards"],
            )
        )
        config = memory_methods.configured(
            ModelConfig.from_dict(settings["model_config"]), settings["method"]
        )
        self.config = config.replace(
            compute_dtype="bfloat16" if settings["precision"] == "bf16" else "float32",
            masked_group_norm=settings["masked_group_norm"],
            convolution_form=form_for_clients(self.layout.chunk),
        )
        self.objective = pretraining_objective(self.config)
        self.crop_samples = round(settings["crop_seconds"] * SAMPLE_RATE_HZ)
        self.work = LocalWork(
            batch_size=settings["batch_size"],
            crop_samples=self.crop_samples,
            steps=settings["local_steps"],
            epochs=settings["local_epochs"],
        )
        self._evaluate = jax.jit(self.objective.evaluate)
        self._load()
        self.server_optimizer = federation.server_optimizer(settings)
        self.steps_per_round = self._steps_per_round()
        self.training = self._training()
        clients = len(self.source.client_ids())
        self._private = None if self.central else federation.privacy(settings, clients, STACKED)

    def _load(self) -> None:
        settings = self.settings
        needed = settings["clients"] or settings["clients_per_round"]
        corpus, others = splits.load_for_pretraining(
            settings["data"],
            settings["split"],
            exclude_speakers_of=settings["exclude_speakers_of"],
            min_samples=self._min_samples(),
            seed=settings["seed"],
            clients=needed,
        )
        self.split = set_aside(corpus, settings["heldout_speakers"], needed, settings["seed"])
        self.corpus = corpus
        training = self.split.training
        if self.central:
            clients = {"centralised": training}
        else:
            dealt = partitions.deal(
                training,
                settings["partition"],
                settings["clients"],
                settings["seed"],
                alpha=settings["dirichlet_alpha"],
                skewed=settings["dirichlet_column"],
            )
            clients = partitions.clips_of_clients(training, dealt)
        self.corrupted: list[str] = []
        if settings["corruption"] != "none":
            kind, seed = settings["corruption"], settings["seed"]
            self.corrupted = corruption.choose(list(clients), settings["corrupted_clients"], seed)
            clients = corruption.spoil(clients, self.corrupted, kind, seed)
        self.source = SpeechClients(clients, self.work, settings["seed"])
        self.diagnostics = Diagnostics(self._evaluate_on, self.split.heldout, clients, self.corrupted)
        about = None if self.central else partitions.to_file(training, dealt)
        self._agree(about)
        self.folder.begin()
        if about is not None:
            self.folder.pin("partition.json", about)
        self.folder.pin(
            "clips.json",
            {
                "clips": len(corpus.clips),
                "seconds": corpus.seconds,
                "speakers": len(corpus.speakers()),
                "heldout_speakers": self.split.heldout_speakers,
                "partition": about and {"rule": about["rule"], **about["summary"]},
                "speakers_also_in": partitions.overlap(training, others),
                "clients": {
                    name: {
                        "speakers": len(set(column(clips, "client_id"))),
                        "clips": len(clips),
                        "seconds": float(lengths(clips).sum()) / SAMPLE_RATE_HZ,
                    }
                    for name, clips in clients.items()
                },
                "skipped_by_reason": corpus.skipped_by_reason(),
                "skipped": [dataclasses.asdict(skip) for skip in corpus.skipped],
                "changed_by_reason": corpus.changed_by_reason(),
                "changed": [dataclasses.asdict(change) for change in corpus.changed],
            }
            | ({"corruption": self._corruption()} if self.corrupted else {}),
        )

    def _agree(self, partition: Any) -> None:
        """Find out whether all processes have the same settings and the same clips."""
        held = json.dumps([self.settings, partition, lengths(self.corpus.clips).tolist()], sort_keys=True)
        if not same_everywhere(zlib.crc32(held.encode())):
            raise UserError(
                "the processes differ in their options or in the corpus that they read: start all with the "
                "same command and the same data"
            )

    def _corruption(self) -> dict[str, Any]:
        return {"kind": self.settings["corruption"], "clients": self.corrupted}

    def _min_samples(self) -> int:
        """A clip must hold one mask span: shorter ones have nothing to predict."""
        strides = int(np.prod(self.config.conv_strides))
        return self.config.receptive_field_samples + (self.config.mask_span - 1) * strides

    def _steps_per_round(self) -> int:
        plans = [self.source.plan(name, 0).num_steps for name in self.source.client_ids()]
        return max(plans)

    def _training(self) -> LocalTraining:
        settings = self.settings
        total = settings["rounds"] * self.steps_per_round
        config = optim.OptimizerConfig(
            name=settings["optimizer"],
            learning_rate=settings["learning_rate"],
            warmup_steps=max(1, round(settings["warmup_share"] * total)),
            total_steps=total,
            final_share=0.1,
            clip_norm=settings["clip_norm"],
            weight_decay=settings["weight_decay"],
            **memory_methods.optimizer_changes(settings["method"]),
        )
        return LocalTraining(
            self.objective,
            optim.make_optimizer(config),
            optim.make_learning_rate(config),
            settings["proximal"],
        )

    def run(self) -> None:
        """Train to the end, from the newest checkpoint on, and write the report."""
        settings, path = self.settings, self.folder.path
        checkpoints = Checkpoints(path / "checkpoints", keep=settings["keep_checkpoints"])
        key = initial_key(settings["seed"])
        if self.central:
            state: Any = jax.jit(lambda k: centralised.init(self.training, k))(key)
        else:
            state = jax.jit(lambda k: server.init(self.objective, self.server_optimizer, k))(key)
        if not self.central and settings["chunk"] is None and jax.default_backend() != "cpu":
            self._settle_chunk(state)
        # Of several processes each reads into its own memory: the first round puts it on all devices.
        restored = checkpoints.restore_newest(fetch(state) if jax.process_count() > 1 else state)
        latest = None
        if restored is None and settings["init"] is not None:
            state = state._replace(parameters=self._initial(state.parameters))
        if restored is not None:
            latest, state, damaged = restored
            for round_index, why in damaged.items() if self.folder.writes else ():
                print(f"checkpoint of round {round_index} is damaged ({why}): continuing from round {latest}")
        self.folder.rewind(latest or 0)
        if self.folder.writes and not (path / "untrained.json").exists():
            if latest is not None:
                raise UserError(f"{path} lacks untrained.json: it is not a whole run; choose another --out")
            write_json(path / "untrained.json", self.evaluate(state.parameters, state.objective_state))
        rounds, spares = settings["rounds"], settings["method"] != memory_methods.PLAIN
        with Progress(rounds, latest or 0, quiet=not self.folder.writes) as progress:
            progress.note(self.describe(latest))
            started = time.perf_counter()
            for log in self._rounds(state):
                line = self._line(log, time.perf_counter() - started)
                if log.diagnosed is not None:
                    self.folder.append(self.diagnostics.line(log.diagnosed), DIAGNOSTICS)
                self.folder.append(line)
                if log.round_index % settings["checkpoint_every"] == 0 or log.round_index == rounds:
                    checkpoints.save(log.round_index, log.state)
                progress.round(line)
                if spares:
                    process_memory.give_back()  # what compilations left behind
                    spares = False
                started = time.perf_counter()
        checkpoints.close()
        if self.folder.writes:
            pretraining_report.write(path)
            print(f"report: {path / 'report.html'}")

    def _initial(self, like: Any) -> Any:
        """The parameters that `--init` names, as the run's own; which they were is written down."""
        parameters = encoders.load_pretraining(self.settings["init"])
        self.folder.pin(
            "init.json",
            {"init": self.settings["init"], "parameters_sha256": encoders.fingerprint(parameters)},
        )
        return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), like, parameters)

    def _settle_chunk(self, state: Any) -> None:
        """Find out how many clients to vmap on an accelerator; a run that continues keeps to it.

        What is measured differs from time to time, and a chunk changes results by rounding.
        """
        held = self.folder.path / LAYOUT
        kept = first_process_says(read_json(held)["chunk"] if held.exists() else 0)
        if kept:
            self._take_chunk(kept)
            return
        per_lane = -(-self.settings["clients_per_round"] // self.layout.lanes)
        names = self.source.client_ids()
        rule = aggregation.RULES[self.settings["aggregation"]](self.settings["temperature"])

        def engine(chunk: int) -> Engine:
            self._take_chunk(chunk)
            return simulation.build_engine(
                self.training,
                rule,
                self.server_optimizer,
                self.layout,
                state,
                next(self.source.client_batches(names[0], 0)),
                self.steps_per_round,
                max_update_norm=self.settings["max_update_norm"] or math.inf,
                privacy=self._private,
            )

        memory = chunks.device_memory_bytes()
        trials = chunks.measure(engine, state, per_lane, self.steps_per_round, memory)
        self._take_chunk(chunks.fastest(trials))
        self.folder.pin(
            LAYOUT,
            {**self.layout._asdict(), "trials": [trial._asdict() for trial in trials]},
        )

    def _take_chunk(self, chunk: int) -> None:
        self.layout = self.layout._replace(chunk=chunk)
        self.config = self.config.replace(convolution_form=form_for_clients(chunk))
        self.objective = pretraining_objective(self.config)
        self.training = self._training()
        self._evaluate = jax.jit(self.objective.evaluate)

    def describe(self, latest: int | None) -> str:
        """One line about the run."""
        settings, seconds = self.settings, self.source.seconds()
        parameters = sum(
            int(np.prod(leaf.shape))
            for leaf in jax.tree.leaves(jax.eval_shape(self.objective.init, jax.random.key(0)))
        )
        who = (
            "no clients"
            if self.central
            else f"{settings['clients_per_round']} of {len(self.source.client_ids())} clients a round, "
            f"{min(seconds):.0f} to {max(seconds):.0f} s of speech each"
        )
        start = f", continuing after round {latest}" if latest else ""
        method = "" if settings["method"] == memory_methods.PLAIN else f", method {settings['method']}"
        return (
            f"{settings['model']} ({parameters:,} parameters){method}, {who}, "
            f"{self.steps_per_round} local steps of {settings['batch_size']} x {settings['crop_seconds']} s, "
            f"{len(self.split.heldout_speakers)} speakers held out, "
            f"{len(self.corpus.skipped)} clips skipped{start}"
        )

    def evaluate(self, parameters: Any, state: Any) -> dict[str, float]:
        """Held-out metrics: fixed crops, keys and order, no noise."""
        return self._evaluate_on(parameters, state, self.split.heldout)

    def _evaluate_on(self, parameters: Any, state: Any, clips: Sequence[Utterance]) -> dict[str, float]:
        parameters, state = jax.device_put(fetch((parameters, state)), jax.local_devices()[0])
        key = evaluation_key(self.settings["seed"])
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
        return self.objective.summarise(jax.device_get(total))

    def _rounds(self, state: Any) -> Iterator[RoundLog]:
        return self._central_stretches(state) if self.central else self._federated_rounds(state)

    def _federated_rounds(self, state: Any) -> Iterator[RoundLog]:
        settings = self.settings
        rule = aggregation.RULES[settings["aggregation"]](settings["temperature"])
        names = self.source.client_ids()
        private = self._private
        run = simulation.Simulation(
            self.training,
            rule,
            self.server_optimizer,
            self.source,
            federation.sampler(settings, names),
            self.layout,
            settings["seed"],
            self.steps_per_round,
            keep_models=lambda index: self._is_due("diagnose_every", index + 1),
            attend=federation.attend(settings, self.source),
            max_update_norm=settings["max_update_norm"] or math.inf,
            privacy=private,
        )
        model_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((state.parameters, state.objective_state)))
        for result in simulation.run(run, state, settings["rounds"]):
            sent = len(result.clients) * model_bytes
            weights = result.weights
            taking_part = weights > 0
            losses, norms = result.losses[taking_part], result.update_norms[taking_part]
            yield RoundLog(
                result.round_index,
                result.server,
                result.sums,
                {
                    "clients": len(result.clients),
                    "skipped_clients": len(result.skipped),
                    "skipped_client_ids": result.skipped,
                    "too_large_clients": len(result.too_large),
                    "dropped_clients": len(result.dropped),
                    "late_clients": len(result.late),
                    "local_steps": result.steps,
                    "padded_share": self._padded_share(result.sums, result.step_slots),
                    "client_ids": result.clients,
                    "client_losses": result.losses.tolist(),
                    "client_weights": weights.tolist(),
                    "effective_clients": float(1.0 / np.square(weights).sum()) if weights.any() else 0.0,
                    "client_loss_min": _or_nan(np.min, losses),
                    "client_loss_max": _or_nan(np.max, losses),
                    "update_norm": result.mean_update_norm,
                    "client_update_norm_mean": _or_nan(np.mean, norms),
                    "bytes_up": sent,
                    "bytes_down": sent + (len(result.dropped) + len(result.late)) * model_bytes,
                }
                | self._corrupted_weight(result)
                | ({"clipped_share": result.clipped_share} if private else {}),
                result if result.models is not None else None,
            )

    def _spent(self, rounds: int) -> dict[str, float]:
        """What a private run has spent after so many rounds."""
        if self._private is None:
            return {}
        clients = len(self.source.client_ids())
        return {
            "epsilon": federation.epsilon_spent(self.settings, self._private, clients, rounds),
            "delta": self.settings["dp_delta"],
            "noise_multiplier": self._private.noise_multiplier,
        }

    def _corrupted_weight(self, result: simulation.RoundResult) -> dict[str, float]:
        """The share that clients with spoilt audio had in a round, where there are such clients."""
        if not self.corrupted:
            return {}
        spoilt = [client in self.corrupted for client in result.clients]
        return {"corrupted_weight": float(result.weights[np.array(spoilt)].sum())}

    def _central_stretches(self, state: Any) -> Iterator[RoundLog]:
        settings, steps = self.settings, self.steps_per_round

        crops = CropBatches(
            self.split.training,
            batch_size=settings["batch_size"],
            crop_samples=self.crop_samples,
            identity=(Draw.CENTRAL_BATCHES, settings["seed"]),
        )

        def batches(index: int):
            return pipeline.stream(crops, first_step=index * steps, num_steps=(index + 1) * steps)

        sums = simulation.abstract_sums(
            self.objective, state.parameters, state.objective_state, next(batches(0))
        )
        for result in centralised.run(
            self.training,
            state,
            batches,
            sums=sums,
            num_stretches=settings["rounds"],
            steps_per_stretch=steps,
            seed=settings["seed"],
        ):
            if not result.finite:
                raise UserError(
                    f"{DIVERGED} in stretch {result.round_index}: the parameters are no longer "
                    "finite; lower --learning-rate and start in another --out"
                )
            yield RoundLog(
                result.round_index,
                result.state,
                result.sums,
                {
                    "clients": 0,
                    "skipped_clients": 0,
                    "local_steps": steps,
                    "padded_share": self._padded_share(result.sums, steps),
                    "update_norm": result.update_norm,
                    "bytes_up": 0,
                    "bytes_down": 0,
                },
            )

    def _is_due(self, setting: str, finished: int) -> bool:
        """Whether what is done every so many rounds is done after a round; after the last one always."""
        every = self.settings[setting]
        return every is not None and (finished % every == 0 or finished == self.settings["rounds"])

    def _padded_share(self, sums: Any, step_slots: int) -> float:
        """Share of the audio slots computed that taught nothing: padding, and clients left out."""
        if not step_slots:  # a round that reached nobody
            return 0.0
        return 1.0 - float(sums["audio_seconds"][0]) / (step_slots * self.source.slot_seconds())

    def _line(self, log: RoundLog, round_seconds: float) -> dict[str, Any]:
        """A line of metrics.jsonl."""
        line: dict[str, Any] = {"round": log.round_index}
        line |= self.objective.summarise(log.sums)
        line |= log.columns
        line["updates"] = log.round_index * self.steps_per_round
        line["round_seconds"] = round_seconds
        if self.folder.writes:  # once is enough, and no part of the round
            line |= self._spent(log.round_index)
        if self._is_due("evaluate_every", log.round_index):
            started = time.perf_counter()
            held = self.evaluate(log.state.parameters, log.state.objective_state)
            line |= {f"heldout_{name}": value for name, value in held.items()}
            line["chance_accuracy"] = held["chance_accuracy"]
            line["evaluation_seconds"] = time.perf_counter() - started
        return line


def _or_nan(function: Any, values: np.ndarray) -> float:
    """A statistic of the clients that took part, or NaN where none did."""
    return float(function(values)) if len(values) else float("nan")

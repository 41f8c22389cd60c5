"""Federated fine-tuning: the same task, loss and scores, with clients who hold the training clips."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import partitions
from experiments.federated.algorithm import AlgorithmSettings, build, pin
from experiments.federated.kept_states import open_states, save_states
from experiments.federated.warnings import fruitless
from experiments.options.errors import UsageError
from experiments.recognition.schedule import learning_rates, local_training
from experiments.recognition.training_run import FineTuningRun
from experiments.runs.folder import RunFolder
from experiments.runs.metric_columns import with_pace
from fed import sampling, simulation
from fed.cohort import Layout, RoundSettings
from fed.compression.transfers import client_transfers
from fed.engine.client_states import ClientStates
from fed.server import ServerState
from fed.simulation import RoundResult
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.errors import DIVERGED, UserError
from w2v_jax.recognition.training import NewBob, TrainingState

ONE_BY_ONE = Layout(lanes=1, chunk=1)
RATE_OPTIONS = "--encoder-learning-rate or --head-learning-rate"


class FederatedFinetuning(FineTuningRun):
    """Carries a federated run through. An update is a local step, which all clients of a round make.

    The statistics of the head's normalisation are the objective's state: clients begin a round with the
    server's, and the server adds the mean of their changes, with the weights of their updates.
    """

    def __init__(self, settings: dict[str, Any], folder: RunFolder):
        self.algorithm = build(
            AlgorithmSettings(algorithm=settings["algorithm"], options=settings["algorithm_options"])
        )
        self.local_steps: int = settings["local_steps"]
        self.states: ClientStates | None = None
        super().__init__(settings, folder)

    def _steps_per_epoch(self) -> int:
        """Count the batches in which all clients go once through their clips."""
        assert self.clients is not None
        return sum(self.clients.epoch_steps(client) for client in self.clients.client_ids())

    def _planned_updates(self) -> int:
        """Choose the local steps of the run, and the clients of a round.

        Raises:
            UsageError: a round has more clients than there are.
        """
        assert self.clients is not None
        population = len(self.clients.client_ids())
        self.clients_per_round = self.settings["clients_per_round"] or population
        if self.clients_per_round > population:
            raise UsageError(
                f"--clients-per-round must be at most {population}, the clients that there are, got "
                f"{self.clients_per_round}"
            )
        batches = self.clients_per_round * self.local_steps
        self.rounds = self.settings["rounds"] or -(-self._updates_of_recipe() // batches)
        return self.rounds * self.local_steps

    def _evaluate_every(self, updates: int) -> int:
        """Choose the local steps between validations, which come after whole rounds."""
        most = self.settings["evaluate_every"] or -(-self.rounds // self.recipe.most_validations)
        return most * self.local_steps

    def _begin(self) -> None:
        super()._begin()
        assert self.clients is not None
        content = partitions.to_file(self.task.splits["train"].clips, self.clients.dealt)
        self.folder.pin("partition.json", content)
        pin(self.folder, self.settings["algorithm"])

    def _facts(self) -> dict[str, Any]:
        assert self.clients is not None
        found = partitions.summary(self.task.splits["train"].clips, self.clients.dealt)
        return {"federation": {"clients_per_round": self.clients_per_round, "rounds": self.rounds, **found}}

    def _initial(self, key: Any) -> ServerState:
        begun = self._begun(key)
        kept = jax.jit(self.algorithm.server_init)(begun.parameters)
        return ServerState(begun.parameters, begun.statistics, kept, jnp.int32(0))

    def scored(self, state: ServerState) -> TrainingState:
        return TrainingState(state.parameters, state.objective_state, ())

    def _save(self, checkpoints: Checkpoints, update: int, state: ServerState) -> None:
        save_states(self.states, checkpoints, self.local_steps)
        super()._save(checkpoints, update, state)

    def _train(
        self, state: ServerState, key: Any, done: int, lines: list[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], ServerState, float]]:
        """Train, and yield a line of metrics and the server's state at every validation."""
        log, started = RoundsLog(), time.perf_counter()
        run = self._simulation(state, done)
        transfers = client_transfers(self.algorithm, run.training, state.parameters, state.objective_state)
        for result in simulation.run(run, state, self.rounds):
            log.add(result)
            update = result.round_index * self.local_steps
            if update % self.evaluate_every and result.round_index < self.rounds:
                continue
            if log.fruitless == log.rounds:
                raise UserError(
                    f"{DIVERGED} before round {result.round_index}: {log.warning}; lower {RATE_OPTIONS} and "
                    "start in another --out"
                )
            train_seconds, started = time.perf_counter() - started, time.perf_counter()
            dev = self.task.validate(self.scored(result.server))
            heard = result.round_index * self.clients_per_round * self.local_steps
            rates = learning_rates(self.settings, self.recipe, update - 1, self.updates, NewBob())
            line = {
                "update": update,
                "round": result.round_index,
                "epoch": heard / self.steps_per_epoch,
                **self.task.objective.summarise(log.sums),
                "skipped_updates": log.skipped_clients * self.local_steps,
                "skipped_clients": log.skipped_clients,
                "update_norm": result.mean_update_norm,
                "bytes_up": log.clients * transfers.up,
                "bytes_down": log.clients * transfers.down,
                **{f"{group}_learning_rate": float(rate) for group, rate in rates.items()},
                **{f"dev_{name}": value for name, value in dev.items()},
                "train_seconds": train_seconds,
                "evaluation_seconds": time.perf_counter() - started,
            }
            yield with_pace(line), result.server, 0.0  # the first line's seconds hold the compilation
            log, started = RoundsLog(), time.perf_counter()

    def _simulation(self, state: ServerState, done: int) -> simulation.Simulation:
        """Build the rounds of the run, with what clients kept after its newest checkpoint."""
        assert self.clients is not None
        training = local_training(self.settings, self.recipe, self.task.objective, self.updates)
        self.states = open_states(
            RoundSettings(training, self.algorithm, ONE_BY_ONE),
            state.parameters,
            self.folder.path,
            on_disk=self.settings["client_states"] == "disk",
            writes=True,
            latest=done // self.local_steps,
        )
        names, seed = self.clients.client_ids(), self.settings["seed"]
        everyone = self.clients_per_round == len(names)
        return simulation.Simulation(
            training,
            self.algorithm,
            self.clients,
            sampling.everyone(names) if everyone else sampling.uniform(names, self.clients_per_round, seed),
            ONE_BY_ONE,
            seed,
            self.local_steps,
            states=self.states,
            warn=lambda text: None,  # RoundsLog prints it, with advice
        )


class RoundsLog:
    """Sums and counts over the rounds between two validations.

    Attributes:
        sums: of the objective, over the clients that counted.
        rounds: that are finished.
        fruitless: rounds in which no client counted.
        skipped_clients: clients whose update was left out, once a round.
        clients: clients that trained, once a round.
        warning: the last warning of a round; None without any.
    """

    def __init__(self) -> None:
        self.sums: Any = None
        self.rounds = self.fruitless = self.skipped_clients = self.clients = 0
        self.warning: str | None = None

    def add(self, result: RoundResult) -> None:
        """Count a round, and print its warning where no client counted."""
        self.sums = result.sums if self.sums is None else jax.tree.map(np.add, self.sums, result.sums)
        self.rounds += 1
        self.clients += len(result.clients)
        self.skipped_clients += len(result.skipped)
        if (warning := fruitless(result, RATE_OPTIONS)) is not None:
            self.warning = warning
            self.fruitless += 1
            print(warning, flush=True)

"""The states that a run's clients keep between rounds, beside its checkpoints."""

from pathlib import Path
from typing import Any

from fed import simulation
from fed.cohort import RoundSettings
from fed.engine.client_states import ClientStates
from w2v_jax.checkpoint import Checkpoints

FOLDER = "clients"


def open_states(
    of_rounds: RoundSettings, parameters: Any, run: Path, *, on_disk: bool, writes: bool, latest: int
) -> ClientStates | None:
    """Open the states of the clients as they were after a round; None where clients keep nothing.

    Args:
        of_rounds: settings of the run's rounds, with the algorithm.
        parameters: the server's.
        run: folder of the run.
        on_disk: hold the states on disk in place of memory.
        writes: this process writes to it.
        latest: number of finished rounds.
    """
    states = simulation.client_states(of_rounds, parameters, run / FOLDER, on_disk=on_disk, writes=writes)
    if states is not None:
        states.resume(latest)
    return states


def save_states(states: ClientStates | None, checkpoints: Checkpoints, steps_per_round: int = 1) -> None:
    """Write what clients keep, for the checkpoint that follows, and delete what no checkpoint needs.

    Args:
        states: of the clients; None where they keep nothing.
        checkpoints: of the run.
        steps_per_round: by how much the numbers of checkpoints rise in a round.
    """
    if states is not None:
        states.save()
        if held := checkpoints.rounds():
            states.forget_before(held[0] // steps_per_round)

"""The states that a run's clients keep between rounds, beside its checkpoints."""

from pathlib import Path
from typing import Any

from experiments.pretrain.settings import Settings
from fed import simulation
from fed.client_states import ClientStates
from fed.cohort import RoundSettings
from w2v_jax.checkpoint import Checkpoints

FOLDER = "clients"


def open_states(
    settings: Settings, of_rounds: RoundSettings, parameters: Any, run: Path, *, writes: bool, latest: int
) -> ClientStates | None:
    """Open the states of the clients as they were after a round; None where clients keep nothing.

    Args:
        settings: of the run.
        of_rounds: settings of its rounds, with the algorithm.
        parameters: the server's.
        run: folder of the run.
        writes: this process writes to it.
        latest: number of finished rounds.
    """
    states = simulation.client_states(
        of_rounds, parameters, run / FOLDER, on_disk=settings.client_states == "disk", writes=writes
    )
    if states is not None:
        states.resume(latest)
    return states


def save_states(states: ClientStates | None, checkpoints: Checkpoints) -> None:
    """Write what clients keep, for the checkpoint that follows, and delete what no checkpoint needs."""
    if states is not None:
        states.save()
        if held := checkpoints.rounds():
            states.forget_before(held[0])

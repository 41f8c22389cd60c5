"""Diagnose a round's clients: the update and the local model of each, before they are averaged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.runs.tasks import Task
from fed.divergence import divergence
from fed.simulation import RoundResult
from w2v_jax.data.common_voice import Utterance, take

HELDOUT_CLIPS = 64
OWN_CLIPS = 16
SHARED_METRICS = ("accuracy", "code_perplexity", "prob_perplexity")  # of every task, beside its loss

Evaluate = Callable[[Any, Any, Sequence[Utterance]], dict[str, float]]


class Diagnostics:
    """Makes lines of diagnostics.jsonl.

    A line needs the clients' models on the host (fed.round.ClientModels) and as much memory again for their
    updates. It costs clients + 2 evaluations of at most HELDOUT_CLIPS held-out clips, and an evaluation of at
    most OWN_CLIPS clips of each client. It draws no random numbers, so that a run is the same without it.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        heldout: Sequence[Utterance],
        clients: Mapping[str, Sequence[Utterance]],
        corrupted: Sequence[str],
        task: Task,
    ):
        """Choose the clips that the models of all rounds are evaluated on.

        Args:
            evaluate: (parameters, objective state, clips) -> metrics without noise.
            heldout: clips of speakers that no client holds.
            clients: client id -> its training clips, as it trains on them.
            corrupted: clients whose clips are spoilt.
            task: the task of the run; its loss and SHARED_METRICS are kept.
        """
        self._names = (task.loss, *SHARED_METRICS)
        self._evaluate = evaluate
        self._heldout = spread(heldout, HELDOUT_CLIPS)
        self._own = {name: spread(clips, OWN_CLIPS) for name, clips in clients.items()}
        self._corrupted = set(corrupted)

    def line(self, result: RoundResult) -> dict[str, Any]:
        """Make a round's line; losses are in nats per masked frame.

        `before` and `after` are the metrics of the global model on the held-out clips. Each of `clients`
        has its `weight`, `training_loss` (over the run's `loss_window`), whether it is `corrupted`,
        `update_norm`, `cosine_to_mean` and `cosine_to_others` (fed.divergence), the metrics of its local
        model on the held-out clips as `heldout_*`, and those of the global model that it started
        from on its own training clips as `own_*`.
        """
        models = result.models
        if models is None:
            raise ValueError(f"round {result.round_index} kept no models")
        agreement = divergence(models.updates(), result.weights)
        clients = []
        for place, name in enumerate(result.clients):
            clients.append(
                {
                    "client": name,
                    "corrupted": name in self._corrupted,
                    "weight": float(result.weights[place]),
                    "training_loss": float(result.losses[place]),
                    "update_norm": float(agreement.norms[place]),
                    "cosine_to_mean": float(agreement.cosine_to_mean[place]),
                    "cosine_to_others": float(agreement.cosine_to_others[place]),
                }
                | self._metrics(*models.of(place), self._heldout, "heldout_")
                | self._metrics(*models.before, self._own[name], "own_")
            )
        server = result.server
        return {
            "round": result.round_index,
            "before": self._metrics(*models.before, self._heldout),
            "after": self._metrics(server.parameters, server.objective_state, self._heldout),
            "mean_update_norm": agreement.mean_norm,
            "clients": sorted(clients, key=lambda client: client["client"]),
        }

    def _metrics(self, parameters: Any, state: Any, clips: Sequence[Utterance], prefix: str = "") -> dict:
        found = self._evaluate(parameters, state, clips)
        return {f"{prefix}{name}": found[name] for name in self._names}


def spread(clips: Sequence[Utterance], most: int) -> Sequence[Utterance]:
    """Choose at most `most` clips, evenly spread over their order."""
    count = len(clips)
    if count <= most:
        return clips
    return take(clips, np.linspace(0, count - 1, most).round().astype(int).tolist())

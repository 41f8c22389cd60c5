"""`finetune --personalise`: adapt the finished model to each client, and score it on clips of the client."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.process.progress import stage
from experiments.recognition.clients.labelled_clients import WITHHELD
from experiments.recognition.schedule import peak_rates
from experiments.report.statistics import interval
from w2v_jax.data.common_voice import column
from w2v_jax.recognition.training import TrainingState

RATE_SHARE = 0.1  # of the peak learning rates: few updates on few clips must not undo what was learnt


def personalised(run: Any, state: TrainingState) -> dict[str, Any] | None:
    """Adapt a copy of the model to each client; None where the run does not ask for it.

    A copy is trained for `--personalise` updates on its client's training clips with a fresh optimizer, at a
    tenth of the peak learning rates. Its running statistics follow. The model and the copy are then scored on
    the client's withheld clips.

    Args:
        run: its task, clients and options.
        state: the parameters and statistics of the finished model.

    Returns:
        The content of results.json's `personalised`. `clients` has a row for each scored client; a positive
        `gain` says that the copy is better.
    """
    updates = run.settings["personalise"]
    if updates is None:
        return None
    assert run.clients is not None
    stage(f"adapting the model to {len(run.clients.client_ids())} clients")
    speakers = column(run.task.splits[WITHHELD].clips, "client_id")
    rows = []
    for client in run.clients.client_ids():
        own = [index for index, name in enumerate(speakers) if name in run.clients.speakers(client)]
        if not own:
            continue
        before = run.task.score(state, own)
        after = run.task.score(_adapted(run, state, client, updates), own)
        rows.append(
            {
                "client": client,
                "speakers": len(run.clients.speakers(client)),
                "training_clips": run.clients.clips(client),
                "withheld_clips": len(own),
                "before": before,
                "after": after,
                "gain": before - after if run.task.lower_is_better else after - before,
            }
        )
    gains = [row["gain"] for row in rows]
    return {
        "score": run.task.score_name,
        "updates": updates,
        "rate_share": RATE_SHARE,
        "withheld_clips": len(speakers),
        "clients_without_withheld_clips": len(run.clients.client_ids()) - len(rows),
        "gain": float(np.mean(gains)),
        "gain_interval": interval(gains),
        "clients": sorted(rows, key=lambda row: (row["gain"], row["client"])),
    }


def _adapted(run: Any, state: TrainingState, client: str, updates: int) -> TrainingState:
    """Train a copy of the model on a client's clips."""
    assert run.clients is not None
    rates = {
        group: np.float32(RATE_SHARE * rate) for group, rate in peak_rates(run.settings, run.recipe).items()
    }
    # The update consumes its state.
    copy = jax.tree.map(jnp.array, state._replace(optimizer_state=run.optimizer.init(state.parameters)))
    key = jax.random.key(run.settings["seed"])
    for step in range(run.updates, run.updates + updates):
        batch = run.clients.batch(client, step)
        copy, _ = run.update(copy, batch, jax.random.fold_in(key, step), rates)
    return copy

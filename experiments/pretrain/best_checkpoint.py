"""`pretrain --keep-best`: the checkpoint of the best round, beside the newest ones."""

from pathlib import Path
from typing import Any

from experiments.runs.best_round import BEST, Criterion, best_line
from experiments.runs.folder import METRICS, read_metrics
from fed.placement import first_process_says
from w2v_jax.checkpoint import Checkpoints


class BestCheckpoint:
    """Keeps the state of the round that does best by a criterion, in `best/` of the run's folder.

    A best round gets a checkpoint among the newest ones too, and gets it first: a run that continues is then
    never behind its best round, and finds in metrics.jsonl which round that is.
    """

    def __init__(self, folder: Path, criterion: Criterion | None):
        """Open `best/`; without a criterion, nothing is kept."""
        self._folder = folder
        self._criterion: Criterion | None = criterion
        self._kept = None if criterion is None else Checkpoints(folder / BEST, keep=1)
        self._best: dict[str, Any] | None = None

    def resume(self, latest: int | None, state: Any) -> None:
        """Find the best round so far.

        Args:
            latest: the round that the run continues after; None for a new run.
            state: the state of that round. It is saved where it is the best and a kill came before it was.
        """
        if self._kept is None or self._criterion is None:
            return
        done = latest or 0
        lines = [line for line in read_metrics(self._folder / METRICS) if line["round"] <= done]
        self._best = best_line(lines, self._criterion)
        kept = self._kept.rounds()
        for round_index in kept:
            if round_index > done:  # the run goes on from before it, and comes to it again
                self._kept.remove(round_index)
        if latest is not None and self._best is not None and self._best["round"] == latest not in kept:
            self._kept.save(latest, state)

    def is_best(self, line: dict[str, Any]) -> bool:
        """Tell whether a round is better than all before it, from its line of metrics.jsonl."""
        if self._criterion is None:
            return False
        before = [] if self._best is None else [self._best]
        found = best_line([*before, line], self._criterion) is line
        if first_process_says(int(found)):
            self._best = line
            return True
        return False

    def save(self, round_index: int, state: Any) -> None:
        """Keep the state of the best round in place of the former best one."""
        assert self._kept is not None
        self._kept.save(round_index, state)

    def close(self) -> None:
        """Release the folder."""
        if self._kept is not None:
            self._kept.close()

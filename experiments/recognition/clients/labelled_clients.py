"""The clients of fine-tuning: who holds which training clips, and the batches that a client trains on."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.data import partitions
from experiments.data.transcribed import Transcribed, selected
from experiments.recognition.task import FineTuningTask
from fed.keys import Stream, stream_generator
from fed.protocols import ClientPlan
from w2v_jax.batch import LabelledBatch
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import stable_id
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import column, lengths
from w2v_jax.errors import CorpusError

WITHHELD_SHARE = 0.2  # of each speaker's training clips
WITHHELD = "withheld"  # the name of that split


class LabelledClients:
    """A ClientSource of fed over labelled clips. All batches of all clients have one shape."""

    def __init__(
        self,
        train: Transcribed,
        batches: LabelledBatches,
        dealt: partitions.Dealt,
        *,
        local_steps: int,
        seed: int,
    ):
        """Take what every client holds.

        Args:
            train: the training clips.
            batches: of these clips, in one bucket.
            dealt: who holds which of them.
            local_steps: of a round.
            seed: of the order of a client's clips.
        """
        paths, samples = column(train.clips, "path"), lengths(train.clips)
        speakers = column(train.clips, "client_id")
        self._batches, self._local_steps, self._seed = batches, local_steps, seed
        self.dealt = dealt
        # The order of the table must not change a client's batches.
        self._clips = {name: sorted(held, key=paths.__getitem__) for name, held in dealt.clients.items()}
        self._speakers = {name: {speakers[index] for index in held} for name, held in dealt.clients.items()}
        self._seconds = {
            name: float(samples[held].sum()) / SAMPLE_RATE_HZ for name, held in dealt.clients.items()
        }

    def client_ids(self) -> list[str]:
        return list(self._clips)

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """Tell a client's steps; its weight is its seconds of audio, and its loss that of the whole round."""
        return ClientPlan(self._local_steps, 0, self._seconds[client_id])

    def client_batches(self, client_id: str, round_index: int) -> Iterator[LabelledBatch]:
        """Go on in the client's epochs, as if it had taken part in all rounds before."""
        first = round_index * self._local_steps
        for step in range(first, first + self._local_steps):
            yield self.batch(client_id, step)

    def batch(self, client_id: str, step: int) -> LabelledBatch:
        """Make a batch of a client. An epoch has every clip once, in batches of about equally many clips."""
        held = self._clips[client_id]
        epoch, place = divmod(step, self.epoch_steps(client_id))
        rng = stream_generator(Stream.CLIENT_BATCHES, self._seed, epoch, stable_id(client_id))
        order = rng.permutation(np.array(held))
        return self._batches.of(np.array_split(order, self.epoch_steps(client_id))[place].tolist(), epoch)

    def epoch_steps(self, client_id: str) -> int:
        """Count the batches of one epoch of a client."""
        return -(-len(self._clips[client_id]) // self._batches.most_rows)

    def clips(self, client_id: str) -> int:
        """Count a client's training clips."""
        return len(self._clips[client_id])

    def described(self) -> str:
        """Count the clients, with the least and the most seconds of one."""
        seconds = self._seconds.values()
        return f"{len(seconds)} clients of {min(seconds):.0f} to {max(seconds):.0f} s"

    def speakers(self, client_id: str) -> set[str]:
        """Name a client's speakers."""
        return self._speakers[client_id]


def deal(train: Transcribed, settings: Mapping[str, Any]) -> partitions.Dealt:
    """Deal the training clips to clients by speaker; without --clients every speaker is one.

    Raises:
        FederationError: there are fewer speakers than clients.
    """
    kind = "speakers" if settings["clients"] is None else settings["partition"]
    return partitions.deal(train.clips, kind, settings["clients"], settings["seed"])


def withhold(train: Transcribed, seed: int) -> tuple[Transcribed, Transcribed]:
    """Set aside a fifth of the clips of every speaker, at least one; a speaker with one clip keeps it.

    Args:
        train: the training clips.
        seed: of the choice, which does not follow from the order of the clips.

    Returns:
        The clips to train on, and the withheld ones.

    Raises:
        CorpusError: every speaker has one clip.
    """
    paths, speakers = column(train.clips, "path"), np.array(column(train.clips, "client_id"))
    chosen: set[int] = set()
    for speaker in np.unique(speakers):
        held = sorted(np.flatnonzero(speakers == speaker).tolist(), key=paths.__getitem__)
        count = min(max(1, round(WITHHELD_SHARE * len(held))), len(held) - 1)
        rng = stream_generator(Stream.HELDOUT, seed, stable_id(str(speaker)))
        chosen |= set(rng.permutation(np.array(held))[:count].tolist())
    if not chosen:
        raise CorpusError(
            "--personalise withholds clips of every speaker, and no speaker has two: leave it out"
        )
    kept = [index for index in range(len(paths)) if index not in chosen]
    return selected(train, kept), selected(train, sorted(chosen))


def clients_of(task: FineTuningTask, settings: Mapping[str, Any]) -> LabelledClients | None:
    """Deal the training clips of a task; None where training is central and nothing is personalised."""
    if settings["personalise"] is None and not settings["local_steps"]:
        return None
    train = task.splits["train"]
    dealt, steps = deal(train, settings), settings["local_steps"] or 1
    return LabelledClients(train, task.one_shape(), dealt, local_steps=steps, seed=settings["seed"])

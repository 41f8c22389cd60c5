"""Recorded speech as federated clients: where w2v_jax's corpora meet fed's protocol."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from fed.keys import Stream, stream_generator
from fed.protocols import ClientPlan
from w2v_jax.batch import Batch
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import stable_id, training_batches
from w2v_jax.data.common_voice import Corpus, Utterance, column, lengths, take
from w2v_jax.errors import CorpusError

MAX_HELDOUT_SPEAKERS = 28
HELDOUT_SHARE = 0.22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heldout:
    """Clips for training and clips of speakers that no client holds."""

    training: Sequence[Utterance]
    heldout: Sequence[Utterance]
    heldout_speakers: list[str]


def set_aside(corpus: Corpus, speakers: int | None, num_clients: int, seed: int) -> Heldout:
    """Choose held-out speakers by the seed.

    Args:
        speakers: how many; None takes about a fifth, at most 28, and leaves a speaker per client.

    Raises:
        CorpusError: more than leaves a speaker for every client.
    """
    by_speaker = corpus.speakers()
    total = len(by_speaker)
    if speakers is None:
        speakers = min(round(HELDOUT_SHARE * total), MAX_HELDOUT_SPEAKERS, total - num_clients)
        speakers = max(speakers, 1)
    if speakers < 1 or total - speakers < num_clients:
        raise CorpusError(
            f"{corpus.folder} has {total} speakers: too few for {num_clients} clients and "
            f"{speakers} held-out speakers; ask for fewer clients or another --heldout-speakers"
        )
    names = sorted(by_speaker)
    order = stream_generator(Stream.HELDOUT, seed).permutation(total)
    chosen = {names[index] for index in order[:speakers]}
    speakers_of_clips = column(corpus.clips, "client_id")
    inside = [index for index, speaker in enumerate(speakers_of_clips) if speaker not in chosen]
    outside = [index for index, speaker in enumerate(speakers_of_clips) if speaker in chosen]
    return Heldout(
        training=take(corpus.clips, inside),
        heldout=take(corpus.clips, outside),
        heldout_speakers=sorted(chosen),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalWork:
    """A client's work in a round: a number of steps, or of epochs over its clips."""

    batch_size: int
    crop_samples: int
    steps: int | None
    epochs: int | None

    def plan(self, clips: Sequence[Utterance]) -> ClientPlan:
        """Steps, the first step of the last epoch, and seconds of audio as the weight."""
        epoch = math.ceil(len(clips) / self.batch_size)
        steps = self.steps if self.steps is not None else epoch * (self.epochs or 1)
        seconds = float(lengths(clips).sum()) / SAMPLE_RATE_HZ
        return ClientPlan(num_steps=steps, loss_from_step=max(0, steps - epoch), weight=seconds)


class SpeechClients:
    """fed's ClientSource over clips, in memory or read when they are needed."""

    def __init__(self, clients: Mapping[str, Sequence[Utterance]], work: LocalWork, seed: int):
        self._clients = clients
        self._work = work
        self._seed = seed
        self._plans = {name: work.plan(clips) for name, clips in clients.items()}

    def client_ids(self) -> list[str]:
        return list(self._clients)

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        return self._plans[client_id]

    def client_batches(self, client_id: str, round_index: int) -> Iterator[Batch]:
        return training_batches(
            self._clients[client_id],
            batch_size=self._work.batch_size,
            crop_samples=self._work.crop_samples,
            num_steps=self._plans[client_id].num_steps,
            identity=(Stream.CLIENT_BATCHES, self._seed, round_index, stable_id(client_id)),
        )

    def seconds(self) -> list[float]:
        """Audio per client."""
        return [float(lengths(clips).sum()) / SAMPLE_RATE_HZ for clips in self._clients.values()]

    def slot_seconds(self) -> float:
        """Audio that one step could hold if nothing were padded."""
        return self._work.batch_size * self._work.crop_samples / SAMPLE_RATE_HZ

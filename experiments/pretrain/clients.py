"""Corpora -> federated clients: who is held out, which clips a client has, and its work in a round."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.data import corruption, partitions, splits
from experiments.pretrain.recipes import Partition
from experiments.pretrain.settings import LossWindow, Settings
from fed.keys import Stream, stream_generator
from fed.protocols import ClientPlan
from w2v_jax.batch import Batch
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.batches.crops import stable_id, training_batches
from w2v_jax.data.common_voice import Corpus, Utterance, column, lengths, take
from w2v_jax.errors import CorpusError

MAX_HELDOUT_SPEAKERS = 28
HELDOUT_SHARE = 0.22
MAX_HELDOUT_CLIPS = 500
HELDOUT_CLIP_SHARE = 0.1  # of the clips, where no speakers are held out
ADDED = ("changed_by_reason", "changed")  # keys that the clips.json of older runs lacks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heldout:
    """Clips to train on, and held-out clips, which no client has.

    Attributes:
        heldout_speakers: those of the held-out clips, whom no client has; empty where clips are held out.
    """

    training: Sequence[Utterance]
    heldout: Sequence[Utterance]
    heldout_speakers: list[str]

    @property
    def described(self) -> str:
        """Tell what is held out."""
        if self.heldout_speakers:
            return f"{len(self.heldout_speakers)} speakers held out"
        clips = len(self.heldout)
        return (
            f"{clips} of {clips + len(self.training)} clips held out, by chance, of speakers who are also "
            "trained on"
        )


def set_aside(
    corpus: Corpus, speakers: int | None, num_clients: int, seed: int, *, partition: Partition = "balanced"
) -> Heldout:
    """Choose the held-out speakers, or the held-out clips, by the seed.

    Args:
        corpus: all clips.
        speakers: how many to hold out. 0 holds out a tenth of the clips instead, at most 500. None takes
            about a fifth of the speakers, at most 28, and leaves a speaker for each client; where clients may
            share speakers and there is one, it takes clips.
        num_clients: clients that need data.
        seed: of the choice.
        partition: how the other clips will be dealt; clients share speakers with "iid" alone.

    Raises:
        CorpusError: too few speakers or clips would be left for the clients; the message says what would do.
    """
    by_speaker = corpus.speakers()
    total, shared = len(by_speaker), partition == "iid"
    if speakers == 0 or (speakers is None and shared and total == 1):
        return _set_clips_aside(corpus, num_clients, seed, shared=shared, partition=partition)
    if speakers is None:
        spare = total - num_clients if total > num_clients or not shared else total - 1
        speakers = max(1, min(round(HELDOUT_SHARE * total), MAX_HELDOUT_SPEAKERS, spare))
    if total - speakers < (1 if shared else num_clients):
        raise CorpusError(_too_few(corpus, total, num_clients, speakers, partition))
    names = sorted(by_speaker)
    order = stream_generator(Stream.HELDOUT, seed).permutation(total)
    chosen = {names[index] for index in order[:speakers]}
    outside = [index for index, name in enumerate(column(corpus.clips, "client_id")) if name in chosen]
    return _divided(corpus, outside, sorted(chosen))


def _set_clips_aside(
    corpus: Corpus, num_clients: int, seed: int, *, shared: bool, partition: Partition
) -> Heldout:
    """Hold out clips by chance; unless clients share speakers, every speaker keeps a clip to train on."""
    speakers = list(column(corpus.clips, "client_id"))
    left, total = Counter(speakers), len(speakers)
    if not shared and len(left) < num_clients:
        raise CorpusError(_too_few(corpus, len(left), num_clients, 0, partition))
    wanted = min(max(1, round(HELDOUT_CLIP_SHARE * total)), MAX_HELDOUT_CLIPS)
    chosen: list[int] = []
    for index in stream_generator(Stream.HELDOUT, seed).permutation(total).tolist():
        if len(chosen) < wanted and (shared or left[speakers[index]] > 1):
            left[speakers[index]] -= 1
            chosen.append(index)
    if not chosen or total - len(chosen) < num_clients:
        raise CorpusError(
            f"{corpus.folder} has {_count(total, 'clip')}: too few to hold clips out and to leave one for "
            f"{_count(num_clients, 'client')}{'' if shared else ' and each speaker'}; give more recordings"
        )
    return _divided(corpus, sorted(chosen), [])


def _divided(corpus: Corpus, outside: Sequence[int], speakers: list[str]) -> Heldout:
    held = set(outside)
    inside = [index for index in range(len(corpus.clips)) if index not in held]
    return Heldout(
        training=take(corpus.clips, inside), heldout=take(corpus.clips, outside), heldout_speakers=speakers
    )


def _too_few(corpus: Corpus, total: int, num_clients: int, heldout: int, partition: Partition) -> str:
    """Say that there are too few speakers, and which options would do."""
    would_do = []
    if num_clients > 1:
        heldout_speakers = "" if heldout < total and total > 1 else " --heldout-speakers 0"
        would_do.append(
            f"--partition iid{heldout_speakers} (clips are dealt by chance, clients share speakers)"
        )
    if heldout > 1 and total > num_clients:
        would_do.append(f"--heldout-speakers {total - num_clients}")
    elif heldout and total >= num_clients:
        would_do.append("--heldout-speakers 0 (a tenth of the clips is held out in place of speakers)")
    if total - heldout >= 1 and num_clients > 1:
        clients = "--clients-per-round" if partition == "speakers" else "--clients"
        would_do.append(f"{clients} {total - heldout}")
    return (
        f"{corpus.folder} has {_count(total, 'speaker')}: too few for {_count(num_clients, 'client')} and "
        f"{_count(heldout, 'held-out speaker')}; give {' or '.join(would_do)}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalWork:
    """A client's work in a round: a number of steps, or of epochs over its clips.

    Attributes:
        loss_window: the steps over which the loss is taken that loss weighting uses: all of the round, or
            those of the client's last epoch.
    """

    batch_size: int
    crop_samples: int
    steps: int | None
    epochs: int | None
    loss_window: LossWindow

    def plan(self, clips: Sequence[Utterance]) -> ClientPlan:
        """Count the steps and find the first one of the loss; the weight is the seconds of audio."""
        epoch = math.ceil(len(clips) / self.batch_size)
        steps = self.steps if self.steps is not None else epoch * (self.epochs or 1)
        first = 0 if self.loss_window == "round" else max(0, steps - epoch)
        seconds = float(lengths(clips).sum()) / SAMPLE_RATE_HZ
        return ClientPlan(num_steps=steps, loss_from_step=first, weight=seconds)


class SpeechClients:
    """A ClientSource of fed over clips, which are in memory or read when they are needed."""

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
        """Compute the seconds of audio of each client."""
        return [float(lengths(clips).sum()) / SAMPLE_RATE_HZ for clips in self._clients.values()]

    def slot_seconds(self) -> float:
        """Compute the seconds of audio that one step holds where nothing is padded."""
        return self._work.batch_size * self._work.crop_samples / SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientData:
    """The clips of a run and who holds them.

    Attributes:
        split: the corpus's clips to train on, and its held-out ones.
        clients: client id -> its clips, as it trains on them.
        corrupted: clients whose clips are spoilt.
        partition: content of partition.json; None where there are no clients.
        speakers_also_in: split -> how many speakers of the training clips are also in it; None if unknown.
    """

    corpus: Corpus
    split: Heldout
    clients: Mapping[str, Sequence[Utterance]]
    corrupted: list[str]
    partition: dict[str, Any] | None
    speakers_also_in: dict[str, int | None]

    def record(self, corruption_kind: str, former: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the content of clips.json.

        Args:
            corruption_kind: how clips are spoilt.
            former: the content that a run which continues has. Older versions counted speakers in other
                splits as 0 if they did not know them; such a run keeps its counts, to continue.
        """
        older = former is not None and not former.keys() & set(ADDED)
        also_in = former.get("speakers_also_in", {}) if former and older else self.speakers_also_in
        corpus, dealt = self.corpus, self.partition
        spoilt = {"corruption": {"kind": corruption_kind, "clients": self.corrupted}}
        by_clip = {"heldout_clips": len(self.split.heldout)}
        return (
            {
                "clips": len(corpus.clips),
                "seconds": corpus.seconds,
                "speakers": len(corpus.speakers()),
                "heldout_speakers": self.split.heldout_speakers,
                "partition": dealt and {"rule": dealt["rule"], **dealt["summary"]},
                "speakers_also_in": also_in,
                "clients": {
                    name: {
                        "speakers": len(set(column(clips, "client_id"))),
                        "clips": len(clips),
                        "seconds": float(lengths(clips).sum()) / SAMPLE_RATE_HZ,
                    }
                    for name, clips in self.clients.items()
                },
                "skipped_by_reason": corpus.skipped_by_reason(),
                "skipped": [dataclasses.asdict(skip) for skip in corpus.skipped],
                "changed_by_reason": corpus.changed_by_reason(),
                "changed": [dataclasses.asdict(change) for change in corpus.changed],
            }
            | (spoilt if self.corrupted else {})
            | ({} if self.split.heldout_speakers else by_clip)
        )


def load(settings: Settings, config: ModelConfig) -> ClientData:
    """Read the corpus, set speakers aside and deal the other clips to clients.

    Clips that are shorter than one mask span of the model are left out: they have nothing to predict.

    Raises:
        UserError, FederationError: the corpus cannot be read, or has too little for the clients.
    """
    needed = settings.clients or settings.clients_per_round
    min_samples = config.receptive_field_samples + (config.mask_span - 1) * config.frame_samples
    corpus, others = splits.load_for_pretraining(
        settings.data,
        settings.split,
        exclude_speakers_of=settings.exclude_speakers_of,
        min_samples=min_samples,
        seed=settings.seed,
        clients=needed,
    )
    split = set_aside(corpus, settings.heldout_speakers, needed, settings.seed, partition=settings.partition)
    partition, clients = None, {"centralised": split.training}
    if not settings.centralised:
        dealt = partitions.deal(
            split.training,
            settings.partition,
            settings.clients,
            settings.seed,
            alpha=settings.dirichlet_alpha,
            skewed=settings.dirichlet_column,
        )
        clients = partitions.clips_of_clients(split.training, dealt)
        partition = partitions.to_file(split.training, dealt)
    corrupted: list[str] = []
    if (kind := settings.corruption) != "none":
        corrupted = corruption.choose(list(clients), settings.corrupted_clients, settings.seed)
        clients = corruption.spoil(clients, corrupted, kind, settings.seed)
    return ClientData(
        corpus=corpus,
        split=split,
        clients=clients,
        corrupted=corrupted,
        partition=partition,
        speakers_also_in=partitions.overlap(split.training, others),
    )

"""Deal a corpus to simulated clients, and describe in a file which client holds which clips."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fed import partition
from fed.fedjax_bridge import lazy_federated_data
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import generator, make_batch, stable_id
from w2v_jax.data.common_voice import Corpus, Utterance, column, lengths, take
from w2v_jax.errors import CorpusError

if TYPE_CHECKING:
    import fedjax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dealt:
    """A corpus dealt to clients.

    Attributes:
        clients: client id -> indices into the clips that were dealt.
        rule: how clips were dealt: kind, number of clients, seed, alpha, column.
    """

    clients: dict[str, list[int]]
    rule: dict[str, Any]


def deal(
    clips: Sequence[Utterance],
    kind: str,
    num_clients: int | None,
    seed: int,
    *,
    alpha: float = 0.5,
    skewed: str = "accent",
) -> Dealt:
    """Deal clips to clients.

    Args:
        kind: "balanced" (disjoint speakers, about equal seconds), "speakers" (each speaker a client),
            "iid" (clips at random, about equal seconds), "dirichlet" (disjoint speakers, each value of a
            column shared out unevenly) or "dirichlet-equal" (disjoint speakers, about equal seconds, each
            client with its own mix of a column's values).
        num_clients: None for all speakers; not for "speakers".
        alpha: concentration of the two dirichlet kinds.
        skewed: column of the two dirichlet kinds; a speaker's most frequent value counts, empty ones too.

    Raises:
        FederationError: too few speakers or clips, or a bad alpha.
        CorpusError: every speaker has the same value in the skewed column.
    """
    speakers, samples = column(clips, "client_id"), lengths(clips)
    count = num_clients or len(set(speakers))
    rule: dict[str, Any] = {"kind": kind, "seed": seed}
    seconds: dict[str, float] = {}
    for speaker, length in zip(speakers, samples.tolist(), strict=True):
        seconds[speaker] = seconds.get(speaker, 0.0) + length / SAMPLE_RATE_HZ
    if kind == "iid":
        paths = column(clips, "path")
        amounts = dict(zip(paths, (samples / SAMPLE_RATE_HZ).tolist(), strict=True))
        dealt, keys = partition.iid(amounts, count, seed), paths
    elif kind == "speakers":
        dealt, keys = partition.single(seconds), speakers
    elif kind in ("dirichlet", "dirichlet-equal"):
        labels = _labels(speakers, column(clips, skewed))
        if len(set(labels.values())) < 2:
            value = next(iter(labels.values())) or "none given"
            raise CorpusError(f"all speakers have the same {skewed} ({value}): nothing to skew")
        skew = partition.dirichlet if kind == "dirichlet" else partition.dirichlet_equal
        dealt, keys = skew(seconds, labels, count, alpha, seed), speakers
        rule |= {"alpha": alpha, "column": skewed}
    else:
        dealt, keys = partition.balanced(seconds, count, seed), speakers
    owner = {key: client for client, held in enumerate(dealt) for key in held}
    names = [f"client_{client:04d}" for client in range(len(dealt))]
    clients: dict[str, list[int]] = {name: [] for name in names}
    for index, key in enumerate(keys):
        clients[names[owner[key]]].append(index)
    return Dealt(clients=clients, rule=rule | {"clients": len(clients)})


def _labels(speakers: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Find each speaker's most frequent value; among equals the first by name."""
    counts: dict[str, dict[str, int]] = {}
    for speaker, value in zip(speakers, values, strict=True):
        held = counts.setdefault(speaker, {})
        held[value] = held.get(value, 0) + 1
    return {s: min(held, key=lambda v: (-held[v], v)) for s, held in counts.items()}


def clips_of_clients(clips: Sequence[Utterance], dealt: Dealt) -> dict[str, Sequence[Utterance]]:
    """Give the clips of every client, by client id."""
    return {name: take(clips, indices) for name, indices in dealt.clients.items()}


def federated_view(
    clips: Sequence[Utterance], dealt: Dealt, *, crop_samples: int, seed: int = 0
) -> "fedjax.FederatedData":
    """Give the partition as a fedjax.FederatedData, which reads audio when a batch is asked for.

    Batches have columns `waveform` float32 [clip, crop_samples], `num_samples` int32 [clip] and
    `utterance_id` uint32 [clip]; a clip's crop is random by seed and clip, the same in every epoch.
    """
    paths = column(clips, "path")

    def read(numbers: np.ndarray) -> dict[str, np.ndarray]:
        rngs = [generator(seed, stable_id(paths[int(number)])) for number in numbers]
        chosen = [clips[int(number)] for number in numbers]
        size = len(numbers)
        batch = make_batch(chosen, rngs, [0] * size, batch_size=size, crop_samples=crop_samples)
        return {name: np.asarray(value) for name, value in batch._asdict().items()}

    return lazy_federated_data(dealt.clients, read)


def summary(clips: Sequence[Utterance], dealt: Dealt) -> dict[str, Any]:
    """Summarise a partition: clients, and seconds and speakers of each (min, median, max)."""
    samples, speakers = lengths(clips), column(clips, "client_id")
    seconds = [float(samples[held].sum()) / SAMPLE_RATE_HZ for held in dealt.clients.values()]
    per_client = [len({speakers[index] for index in held}) for held in dealt.clients.values()]
    return {
        "clients": len(dealt.clients),
        "seconds_min_median_max": _spread(seconds),
        "speakers_min_median_max": _spread(per_client),
    }


def to_file(clips: Sequence[Utterance], dealt: Dealt) -> dict[str, Any]:
    """Give the content of partition.json: rule, summary, a digest of the clients' clips, and their speakers.

    Clips of an iid partition are not listed: the rule gives them again for the same corpus, and the digest
    tells whether they are the same.
    """
    speakers, paths = column(clips, "client_id"), column(clips, "path")
    digest = hashlib.sha256()
    for name, held in dealt.clients.items():
        digest.update(f"{name}\n".encode())
        for path in sorted(paths[index] for index in held):
            digest.update(f"{path}\n".encode())
    content = {"rule": dealt.rule, "summary": summary(clips, dealt), "sha256": digest.hexdigest()}
    if dealt.rule["kind"] != "iid":
        content["speakers"] = {
            name: sorted({speakers[index] for index in held}) for name, held in dealt.clients.items()
        }
    return content


def overlap(clips: Sequence[Utterance], others: Mapping[str, set[str] | None]) -> dict[str, int | None]:
    """Count the clips' speakers that are in other splits, by split; None where those are not known."""
    speakers = set(column(clips, "client_id"))
    return {split: None if theirs is None else len(speakers & theirs) for split, theirs in others.items()}


def without_speakers(corpus: Corpus, speakers: set[str]) -> Corpus:
    """Leave out the clips of some speakers.

    Raises:
        CorpusError: nothing is left.
    """
    kept = [i for i, speaker in enumerate(column(corpus.clips, "client_id")) if speaker not in speakers]
    if not kept:
        raise CorpusError(f"{corpus.folder}: no clips are left without the excluded speakers")
    return dataclasses.replace(corpus, clips=take(corpus.clips, kept))


def _spread(values: Sequence[float]) -> list[float]:
    return [float(np.min(values)), float(np.median(values)), float(np.max(values))]

"""Batches of utterances, and sums over them."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int, UInt


class Batch(NamedTuple):
    """A batch of utterances at 16 kHz. A row with no samples is padding and changes nothing."""

    waveform: Float[Array, "batch sample"]
    num_samples: Int[Array, " batch"]
    utterance_id: UInt[Array, " batch"]


class Total(NamedTuple):
    """A sum and its weight; both add up over batches, micro-batches and clients."""

    total: Float[Array, "*shape"]
    weight: Float[Array, ""]


Sums = dict[str, Total]


class LabelledBatch(NamedTuple):
    """A batch of utterances at 16 kHz and their transcripts. A row with no samples is padding."""

    waveform: Float[Array, "batch sample"]
    num_samples: Int[Array, " batch"]
    utterance_id: UInt[Array, " batch"]
    labels: Int[Array, "batch label"]
    num_labels: Int[Array, " batch"]

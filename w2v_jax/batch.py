"""Batches of utterances, and sums that add up over batches, micro-batches and clients."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int, UInt


class Batch(NamedTuple):
    """One batch of utterances. A row with no samples is padding and changes nothing."""

    waveform: Float[Array, "batch sample"]
    num_samples: Int[Array, " batch"]
    utterance_id: UInt[Array, " batch"]


class Total(NamedTuple):
    """A sum and the weight it was summed over: adds up over batches, micro-batches and clients."""

    total: Float[Array, "*shape"]
    weight: Float[Array, ""]


Sums = dict[str, Total]


class LabelledBatch(NamedTuple):
    """Utterances and their transcripts. A row with no samples is padding and changes nothing."""

    waveform: Float[Array, "batch sample"]
    num_samples: Int[Array, " batch"]
    utterance_id: UInt[Array, " batch"]
    labels: Int[Array, "batch label"]
    num_labels: Int[Array, " batch"]

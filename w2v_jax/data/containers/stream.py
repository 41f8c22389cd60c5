"""One audio stream of a file."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stream:
    """Bytes that libsndfile decodes to their end.

    Attributes:
        data: a whole file of one stream.
        fewest_samples: samples per channel that must come at least, at the stream's own rate.
        damage: what is wrong inside although the stream can be decoded; empty if nothing is.
    """

    data: bytes
    fewest_samples: int = 0
    damage: str = ""

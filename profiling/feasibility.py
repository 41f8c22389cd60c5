"""Arithmetic of feasibility: memory, clip length, bytes and years. Its assumptions are arguments."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from profiling.device import Device, Kind

Verdict = Literal["fits", "borderline", "too large", "unknown"]

# The share of a device's memory that a training program does not get, by class. XLA itself leaves a quarter
# by default (XLA_PYTHON_CLIENT_MEM_FRACTION is 0.75) to driver, context, system and fragmentation. Phones run
# other programs too (the paper, section 3.3); half is an assumption.
HEADROOM: dict[Kind, float] = {"server": 0.25, "computer": 0.25, "board": 0.25, "phone": 0.5}

PCM_BYTES_PER_SECOND = 16_000 * 2
COMPRESSED_BITS_PER_SECOND = 48_000


def usable_bytes(device: Device, headroom: float | None = None) -> int | None:
    """Compute the memory that a training program may use; None where the device's memory is unknown.

    Args:
        device: the device.
        headroom: share of the memory that is left to all else; by default that of the device's class.
    """
    if device.memory_bytes is None:
        return None
    return int(device.memory_bytes * (1.0 - (HEADROOM[device.kind] if headroom is None else headroom)))


def is_borderline(ratio: float, error: float) -> bool:
    """Tell whether a ratio that must reach one is closer to one than its relative error."""
    return 1.0 / (1.0 + error) < ratio < 1.0 + error


def verdict(needed: float | None, usable: int | None, error: float = 0.0) -> Verdict:
    """Judge whether what a program needs fits into what there is.

    Args:
        needed: bytes; None where they are unknown.
        usable: bytes; None where they are unknown.
        error: relative error of `needed`; inside it the verdict is "borderline".
    """
    if needed is None or usable is None:
        return "unknown"
    if is_borderline(usable / needed, error):
        return "borderline"
    return "fits" if needed <= usable else "too large"


def longest(needed: Callable[[float], float], usable: float, shortest: float, limit: float) -> float | None:
    """Find the longest clip in seconds whose program fits, to a hundredth; None where no clip fits.

    Args:
        needed: seconds -> bytes, growing.
        usable: bytes.
        shortest, limit: shortest and longest clip in seconds; `limit` is returned where it fits.
    """
    if needed(shortest) > usable:
        return None
    if needed(limit) <= usable:
        return limit
    low, high = shortest, limit
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) <= usable else (low, middle)
    return low


def years_to_reach(gap: float, doubling_months: float) -> float:
    """Compute the years until a quantity that doubles every `doubling_months` has grown `gap`-fold.

    The years are negative for a gap below one, which is closed already.
    """
    return math.log2(gap) * doubling_months / 12.0


def growth(years: float, doubling_months: float) -> float:
    """Compute the factor by which a quantity that doubles every `doubling_months` grows in `years`."""
    return 2.0 ** (years * 12.0 / doubling_months)


class Link(NamedTuple):
    """A network link with its nominal rates in Mbit/s."""

    title: str
    down_megabits: float
    up_megabits: float
    source: str

    def seconds(self, down_bytes: float, up_bytes: float) -> float:
        """Compute the seconds to receive and then send bytes at the nominal rates."""
        return 8.0 * (down_bytes / self.down_megabits + up_bytes / self.up_megabits) / 1e6


LINKS = {
    "ethernet": Link("Fast Ethernet", 100, 100, "IEEE 802.3u"),
    "gigabit": Link("Gigabit Ethernet", 1000, 1000, "IEEE 802.3ab"),
    "wifi-n": Link("Wi-Fi 4, one stream of 40 MHz", 150, 150, "IEEE 802.11n"),
    "lte": Link("LTE, category 4", 150, 50, "3GPP TS 36.306"),
}


def audio_bytes(seconds: float, *, compressed: bool = False) -> float:
    """Compute the bytes of speech at 16 kHz, as 16-bit samples or by a codec of 48 kbit/s."""
    return seconds * (COMPRESSED_BITS_PER_SECOND / 8 if compressed else PCM_BYTES_PER_SECOND)


def break_even_rounds(bytes_per_round: float, bytes_of_audio: float) -> int:
    """Compute the first round after which federated training has sent more bytes than the audio has."""
    return math.floor(bytes_of_audio / bytes_per_round) + 1

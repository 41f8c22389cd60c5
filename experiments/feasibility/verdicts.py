"""Words for the verdict on a device: yes, no, borderline or unknown, by criterion and together."""

from collections.abc import Iterable
from typing import Any, Literal

from experiments.costs.devices.records import REFERENCE, DeviceVerdict
from experiments.report.units import number
from profiling.feasibility import is_borderline

Answer = Literal["yes", "no", "borderline", "unknown"]

CRITERIA = {
    "compute": "compute",
    "memory": "memory",
    "memory_remat": "memory, remat",
    "memory_exact": "memory, exact",
    "bytes": "bytes",
    "energy": "energy",
}
MEMORIES = ("memory", "memory_remat", "memory_exact")


def verdicts_of(result: dict[str, Any]) -> list[DeviceVerdict]:
    """Read the verdicts of feasibility.json."""
    return [DeviceVerdict.from_json(row) for row in result["verdicts"]]


def answer(device: DeviceVerdict, criterion: str) -> Answer:
    """Answer whether a device meets a criterion; borderline where the ratio's own error could turn it."""
    ratio = device.ratio(criterion)
    if ratio is None:
        return "unknown"
    if is_borderline(ratio, device.errors.get(criterion, 0.0)):
        return "borderline"
    return "yes" if ratio >= 1 else "no"


def overall(device: DeviceVerdict) -> Answer:
    """Answer for all criteria together, memory by the method that needs least.

    Returns:
        no where one criterion fails; else unknown where one is unknown, borderline where one is that, or yes.
    """
    known = [name for name in MEMORIES if device.ratio(name) is not None]
    memory = max(known, key=lambda name: device.ratio(name) or 0.0, default="memory")
    answers = {answer(device, name) for name in ("compute", memory, "bytes", "energy")}
    order: tuple[Answer, ...] = ("no", "unknown", "borderline", "yes")
    return next(word for word in order if word in answers)


def meeting(devices: Iterable[DeviceVerdict], criterion: str) -> int:
    """Count the devices that are known to meet a criterion."""
    return sum(answer(device, criterion) == "yes" for device in devices)


def in_words(device: DeviceVerdict, criterion: str) -> str:
    """Format a criterion's answer with its ratio; the answer is the word before the comma."""
    ratio, word = device.ratio(criterion), answer(device, criterion)
    if ratio is None:
        return word
    return f"no, {number(1 / ratio)} x short" if word == "no" else f"{word}, {number(ratio)} x"


def unmet(devices: list[DeviceVerdict]) -> str:
    """Name the criteria that no device but the reference meets; empty where each is met by one at least."""
    others = [device for device in devices if device.device != REFERENCE]
    names = [title for name, title in CRITERIA.items() if not meeting(others, name)]
    return f"The A40 aside, no device meets {' or '.join(names)}." if names else ""

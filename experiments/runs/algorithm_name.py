"""The name of a run's federated algorithm, from its settings. Imports no jax."""

from collections.abc import Mapping
from typing import Any

AVERAGES = ("fedavg", "fedprox")  # they take a rule of aggregation


def algorithm_name(settings: Mapping[str, Any]) -> str:
    """Name the algorithm with its options and codecs, such as `scaffold` or `loss-weighted, q2 up`.

    Args:
        settings: of a federated run; runs of older versions lack some of them.
    """
    name = settings.get("algorithm", "fedavg").rpartition("/")[2]
    rule = settings.get("aggregation", "fedavg")
    parts = [rule if name == "fedavg" else name]
    if name == "fedprox" and rule != "fedavg":
        parts.append(rule)
    parts += settings.get("algorithm_options") or ()
    for way in ("up", "down"):
        if (codec := settings.get(f"compress_{way}")) is not None:
            parts.append(f"{codec} {way}")
    return ", ".join(parts)

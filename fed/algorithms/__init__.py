"""Federated algorithms by name. Each is a function of its own settings that makes an `Algorithm`."""

from collections.abc import Callable

from fed.algorithm import Algorithm
from fed.algorithms.averaging import averaging, fedprox
from fed.algorithms.diloco import diloco
from fed.algorithms.feddyn import feddyn
from fed.algorithms.fednova import fednova
from fed.algorithms.mime_lite import mime_lite
from fed.algorithms.qfedavg import qfedavg
from fed.algorithms.robust import krum, median, trimmed_mean
from fed.algorithms.scaffold import scaffold

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "fedavg": averaging,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "fednova": fednova,
    "feddyn": feddyn,
    "mime-lite": mime_lite,
    "q-fedavg": qfedavg,
    "diloco": diloco,
    "median": median,
    "trimmed-mean": trimmed_mean,
    "krum": krum,
}

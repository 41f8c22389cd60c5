"""How the benchmark speaks with a runner: a line on standard input asks, a line of JSON answers.

    python -m experiments.bench.rounds.peers.RUNNER --work work.npz [--form product] --out end.npz

"round" runs one round and answers {"seconds"}; "finish" writes the parameters after all rounds and
answers {"peak_bytes", "host_peak_bytes", "device", "device_kind"} and what else the runner tells. The
first line, unasked, is {"ready": true}. Needs NumPy alone.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from profiling import process_memory

Parameters = dict[str, np.ndarray]
ADAM_EPSILON = 1e-6


class Work:
    """The work of a round, from the file that the benchmark wrote.

    Attributes:
        kind: "toy", "dense" or "speech".
        parameters: initial ones, by name.
        batches: arrays by name, each [client, step, ...].
        learning_rate: of plain SGD, or of AdamW without decay if `optimizer` says so.
        clients, steps: local steps a client.
        config: of the speech model, as JSON.
        model_name: its preset.
    """

    def __init__(self, path: str):
        held = np.load(path)
        self.parameters = {k.removeprefix("p:"): held[k] for k in held.files if k.startswith("p:")}
        self.batches = {k.removeprefix("b:"): held[k] for k in held.files if k.startswith("b:")}
        about = json.loads(str(held["about"]))
        self.kind, self.learning_rate, self.config = about["kind"], about["learning_rate"], about["config"]
        self.optimizer, self.model_name = about["optimizer"], about["model"]
        self.clients, self.steps = next(iter(self.batches.values())).shape[:2]

    def batch(self, client: int, step: int) -> dict[str, np.ndarray]:
        """One batch."""
        return {name: values[client, step] for name, values in self.batches.items()}


def write_work(
    path: Path, kind: str, parameters: Parameters, batches: Parameters, about: dict[str, Any]
) -> None:
    """Write the work of a round for all runners."""
    named = {f"p:{name}": value for name, value in parameters.items()}
    named |= {f"b:{name}": value for name, value in batches.items()}
    np.savez(
        path,
        about=np.array(
            json.dumps({"kind": kind, "config": None, "optimizer": "sgd", "model": "tiny"} | about)
        ),
        **named,
    )


_answers: list[TextIO] = []


def arguments() -> argparse.Namespace:
    """What every runner is given; to be asked before all else.

    Frameworks print on standard output: answers go to what it was, everything else to standard error.
    """
    _answers.append(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--form", choices=("lax", "product", "own", "auto", "mesh"), default="lax")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--backend", default="jit", help="of fedjax")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def serve(
    run_round: Callable[[], Any],
    finish: Callable[[], Parameters],
    out: str,
    about: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Answer until the benchmark is done.

    `run_round` returns once its round is done; `about` is told at the end.
    """
    answer({"ready": True})
    while asked():
        started = time.perf_counter()
        run_round()
        answer({"seconds": time.perf_counter() - started})
    end(finish(), out, **about())


def asked() -> bool:
    """Wait for the next line: True for a round, False for the end."""
    return sys.stdin.readline().strip() == "round"


def answer(line: dict[str, Any]) -> None:
    """Answer the benchmark."""
    print(json.dumps(line), file=_answers[0], flush=True)


def end(parameters: Parameters, out: str, **about: Any) -> None:
    """Write where the parameters ended, and say what it took."""
    np.savez(out, **parameters)
    device, kind, held = _device()
    peak = _peak_resident_bytes()
    told = {"peak_bytes": held or peak, "host_peak_bytes": peak}
    answer(told | {"device": device, "device_kind": kind} | about)


def _peak_resident_bytes() -> int:
    """Most that this program held. (Linux's ru_maxrss begins with what the process held that started it.)"""
    try:
        return process_memory.peak_resident_bytes()
    except OSError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device() -> tuple[str, str, int | None]:
    """(platform, its kind, most of its own memory in use or None) of the framework at work."""
    if torch := sys.modules.get("torch"):
        if not torch.cuda.is_available():
            return "cpu", "cpu", None
        return "gpu", torch.cuda.get_device_name(0), torch.cuda.max_memory_allocated()
    if jax := sys.modules.get("jax"):
        device = jax.local_devices()[0]
        held = device.memory_stats() or {}
        return device.platform, device.device_kind, held.get("peak_bytes_in_use")
    return "cpu", "cpu", None

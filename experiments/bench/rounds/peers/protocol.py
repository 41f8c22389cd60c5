"""The protocol of the benchmark and a runner: a line on standard input asks, a line of JSON answers.

    python -m experiments.bench.rounds.peers.RUNNER --work work.npz [--form product] --out end.npz

"round" runs one round and answers {"seconds"}. "finish" writes the parameters after all rounds and answers
{"peak_bytes", "host_peak_bytes", "device", "device_kind"} and further facts of the runner. The runner starts
with the line {"ready": true}. Needs only NumPy.
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
        parameters: initial parameters by name.
        batches: arrays by name, each [client, step, ...].
        optimizer: "sgd" for plain SGD, "adamw" for AdamW without decay.
        learning_rate: learning rate of the optimizer.
        clients, steps: number of clients and local steps of each.
        config: configuration of the speech model, as JSON.
        model_name: preset of the speech model.
    """

    def __init__(self, path: str):
        file = np.load(path)
        self.parameters = {k.removeprefix("p:"): file[k] for k in file.files if k.startswith("p:")}
        self.batches = {k.removeprefix("b:"): file[k] for k in file.files if k.startswith("b:")}
        about = json.loads(str(file["about"]))
        self.kind, self.learning_rate, self.config = about["kind"], about["learning_rate"], about["config"]
        self.optimizer, self.model_name = about["optimizer"], about["model"]
        self.clients, self.steps = next(iter(self.batches.values())).shape[:2]

    def batch(self, client: int, step: int) -> dict[str, np.ndarray]:
        """Return one batch."""
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
    """Parse the command line of a runner; call this before all else.

    Frameworks print on standard output. So answers go to the original standard output, and everything else
    goes to standard error.
    """
    _answers.append(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--form", choices=("lax", "product", "own", "auto", "mesh"), default="lax")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--backend", default="jit", help="for-each-client backend of fedjax")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def serve(
    run_round: Callable[[], Any],
    finish: Callable[[], Parameters],
    out: str,
    about: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Answer the benchmark until it is done.

    Args:
        run_round: returns when its round is done.
        finish: returns the last parameters.
        out: file for the last parameters.
        about: returns further facts for the last answer.
    """
    answer({"ready": True})
    while asked():
        started = time.perf_counter()
        run_round()
        answer({"seconds": time.perf_counter() - started})
    end(finish(), out, **about())


def asked() -> bool:
    """Wait for the next line; return True for a round, False for the end."""
    return sys.stdin.readline().strip() == "round"


def answer(line: dict[str, Any]) -> None:
    """Send the benchmark a line."""
    print(json.dumps(line), file=_answers[0], flush=True)


def end(parameters: Parameters, out: str, **about: Any) -> None:
    """Write the last parameters, and answer with peak memory and device."""
    np.savez(out, **parameters)
    device, kind, on_device = _device()
    peak = _peak_resident_bytes()
    memory = {"peak_bytes": on_device or peak, "host_peak_bytes": peak}
    answer(memory | {"device": device, "device_kind": kind} | about)


def _peak_resident_bytes() -> int:
    """Return the most memory that this program held.

    Linux's ru_maxrss would not do: it starts from the memory of the process that started this one.
    """
    try:
        return process_memory.peak_resident_bytes()
    except OSError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device() -> tuple[str, str, int | None]:
    """Return (platform, kind of device, most of its own memory in use or None) of the loaded framework."""
    if torch := sys.modules.get("torch"):
        if not torch.cuda.is_available():
            return "cpu", "cpu", None
        return "gpu", torch.cuda.get_device_name(0), torch.cuda.max_memory_allocated()
    if jax := sys.modules.get("jax"):
        device = jax.local_devices()[0]
        memory = device.memory_stats() or {}
        return device.platform, device.device_kind, memory.get("peak_bytes_in_use")
    return "cpu", "cpu", None

"""The runners of `bench rounds`, and how each is started in a process and asked for rounds."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.bench.rounds.peers import environments

CHILDREN = {
    # Every runner compiles without a cache, so that first rounds can be compared.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    # Several runners share an accelerator.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """One way to run a round.

    Attributes:
        module: module of experiments.bench.rounds.peers.
        environment: virtual environment of a peer, or None for this one.
        forms: forms of convolutions. Every form is a contender, and the fastest one counts. On a CPU the toy
            model can also take this project's own derivatives, which stay fast in loops; the speech model's
            `lax` has them anyway.
        accelerator_forms: forms on an accelerator, where they differ. `auto`: this project's choice by chunk.
        precision: fp32 or bf16, or None for the workload's.
        words: further words of the command line.
        stops: whether its processes may be stopped while others run.
        leaves_out: workloads that it cannot do.
    """

    module: str
    environment: str | None = None
    precision: str | None = None
    words: tuple[str, ...] = ()
    forms: tuple[str, ...] = ("lax", "product")
    accelerator_forms: tuple[str, ...] | None = None
    stops: bool = True
    leaves_out: tuple[str, ...] = ()

    def forms_for(self, workload: str, device: str) -> tuple[str, ...]:
        """Return the forms that compete on a workload on a cpu, gpu or tpu."""
        forms = self.forms if device == "cpu" else self.accelerator_forms or self.forms
        if workload == "dense":
            return forms[:1]
        return (*forms, "own") if (workload, device) == ("toy", "cpu") and "lax" in forms else forms


RUNNERS = {
    "ours": Runner(module="ours", accelerator_forms=("auto",)),
    "loop": Runner(module="loop"),
    "sequential": Runner(module="sequential"),
    "fedjax_jit": Runner(module="fedjax_round"),
    # Vmapped over clients, lax.conv becomes a grouped convolution, which is slow on a CPU.
    # mesh: products too, with the clients spread over a device for each core.
    "drjax": Runner(
        module="drjax_round",
        environment="drjax",
        forms=("product", "mesh"),
        accelerator_forms=("product",),
    ),
    "pfl": Runner(module="pfl_round", environment="pfl", forms=("torch",)),
    "blazefl": Runner(module="blazefl_round", environment="blazefl", forms=("torch",)),
    # Ray takes stopped nodes for dead ones.
    "flower": Runner(
        module="flower_round", environment="flower", forms=("torch",), stops=False, leaves_out=("base",)
    ),
}
# fedjax's own FedAvg through its backend and through this project's (fed.fedjax_vmap).
FEDJAX_RUNNERS = {
    "fedjax_jit": Runner(module="fedjax_round"),
    "fedjax_vmap": Runner(module="fedjax_round", words=("--backend", "vmap")),
}
# One step of base by this project, without anything around it, and by transformers.
STEP_RUNNERS = {
    "ours_fp32": Runner(module="step", precision="fp32"),
    "ours_bf16": Runner(module="step", precision="bf16"),
    "torch_fp32": Runner(module="step_torch", environment="torch", forms=("torch",), precision="fp32"),
    "torch_bf16": Runner(module="step_torch", environment="torch", forms=("torch",), precision="bf16"),
}


class RunnerProcess:
    """A runner in a process, which answers the benchmark line by line.

    Args:
        name: name of the runner.
        runner: the runner.
        form: form of its convolutions.
        work: file of the workload.
        folder: folder of the log and of the last parameters.
        precision: precision of a runner that has none of its own.
        environment: environment variables of the process.
    """

    def __init__(
        self,
        name: str,
        runner: Runner,
        form: str,
        work: Path,
        folder: Path,
        precision: str,
        environment: Mapping[str, str],
    ):
        self.name, self.form, self.runner = name, form, runner
        self.precision = runner.precision or precision
        self.out = folder / f"{name}-{form}.npz"
        self.log = (folder / f"{name}-{form}.log").open("wb")
        python = sys.executable
        if self.runner.environment:
            python = environments.interpreter(self.runner.environment) or python
        argv = [python, "-m", f"experiments.bench.rounds.peers.{self.runner.module}", "--work", str(work)]
        argv += ["--out", str(self.out), *(("--form", form) if form != "torch" else ())]
        argv += ["--precision", self.precision, *runner.words]
        path = os.pathsep.join([str(environments.ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=environments.ROOT,
            env={**environment, "PYTHONPATH": path},
            start_new_session=True,
        )
        self.startup_seconds = 0.0
        self.seconds: list[float] = []
        self.timed: list[float] = []
        self.end: dict[str, Any] = {}

    def warm_up(self, rounds: int) -> None:
        """Wait until the runner is ready, and run its first rounds.

        Raises:
            RuntimeError: the process ended.
        """
        self._answer()
        self.startup_seconds = time.perf_counter() - self._began
        for _ in range(rounds):
            self.round()

    def round(self) -> float:
        """Run one round and return its seconds."""
        self._say("round")
        self.seconds.append(self._answer()["seconds"])
        return self.seconds[-1]

    def finish(self) -> None:
        """Let the runner write its parameters and end."""
        self._say("finish")
        self.end = self._answer()
        self._process.wait()
        self.log.close()

    def pause(self) -> None:
        """Stop the process and its children, so that they do not run beside another runner."""
        if self.runner.stops:
            self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue after a pause."""
        if self.runner.stops:
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process and its children, unless they have ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # the process has ended; waiting for its answer reports it

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ({self.form}) ended; see {self.log.name}")
        return json.loads(line)

"""Who takes part in `bench rounds`, and how a runner in a process of its own is started and spoken with."""

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
    # Every runner compiles anew, so that first rounds can be compared.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    # Several share an accelerator.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """One way to run a round.

    Attributes:
        module: of experiments.bench.rounds.peers.
        environment: a peer's, or None for this one.
        forms: of convolutions; every one is a contender, and the fastest counts. On CPU the toy model can
            also take this project's own derivatives, which stay fast in loops; the speech model's `lax` has
            them.
        accelerator_forms: there, if they are others. `auto`: as this project chooses by the chunk.
        precision: fp32 or bf16, or None for the workload's.
        words: of its command line, besides.
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
        """The contenders of a workload on a cpu, gpu or tpu."""
        forms = self.forms if device == "cpu" else self.accelerator_forms or self.forms
        if workload == "dense":
            return forms[:1]
        return (*forms, "own") if (workload, device) == ("toy", "cpu") and "lax" in forms else forms


RUNNERS = {
    "ours": Runner(module="ours", accelerator_forms=("auto",)),
    "loop": Runner(module="loop"),
    "sequential": Runner(module="sequential"),
    "fedjax_jit": Runner(module="fedjax_round"),
    # Vmapped over clients, lax.conv becomes a grouped convolution, which is slow on CPU.
    # mesh: products as well, the clients spread over a device for each core.
    "drjax": Runner(
        module="drjax_round",
        environment="drjax",
        forms=("product", "mesh"),
        accelerator_forms=("product",),
    ),
    "pfl": Runner(module="pfl_round", environment="pfl", forms=("torch",)),
    # Ray takes nodes that stand still for dead.
    "flower": Runner(
        module="flower_round", environment="flower", forms=("torch",), stops=False, leaves_out=("base",)
    ),
}
# fedjax's own FedAvg through its backend and through this project's (fed.fedjax_vmap).
FEDJAX_RUNNERS = {
    "fedjax_jit": Runner(module="fedjax_round"),
    "fedjax_vmap": Runner(module="fedjax_round", words=("--backend", "vmap")),
}
# One step of base: this project's, alone, beside transformers'.
STEP_RUNNERS = {
    "ours_fp32": Runner(module="step", precision="fp32"),
    "ours_bf16": Runner(module="step", precision="bf16"),
    "torch_fp32": Runner(module="step_torch", environment="torch", forms=("torch",), precision="fp32"),
    "torch_bf16": Runner(module="step_torch", environment="torch", forms=("torch",), precision="bf16"),
}


class Process:
    """A runner at work; `precision` where it has none of its own."""

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

    def wait_until_ready(self) -> None:
        """It has started."""
        self._answer()
        self.startup_seconds = time.perf_counter() - self._began

    def round(self) -> float:
        """Run one round while the others stand still; its seconds."""
        self._say("round")
        self.seconds.append(self._answer()["seconds"])
        return self.seconds[-1]

    def finish(self) -> None:
        """Let it write its parameters and end."""
        self._say("finish")
        self.end = self._answer()
        self._process.wait()
        self.log.close()

    def pause(self) -> None:
        """Let it and its children stand still, so that nothing of theirs runs beside another."""
        if self.runner.stops:
            self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of a pause."""
        if self.runner.stops:
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and its children, if they have not ended."""
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
            return  # it has ended: waiting for its answer tells

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ({self.form}) ended; see {self.log.name}")
        return json.loads(line)

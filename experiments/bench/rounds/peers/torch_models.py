"""Models of the workloads in torch."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.bench.rounds.peers.protocol import ADAM_EPSILON, Parameters, Work

# cuDNN rounds fp32 to 19 bits by default; all runners take full fp32.
torch.backends.cudnn.allow_tf32 = False


def rounding(device: str, precision: str) -> contextlib.AbstractContextManager:
    """Return the context of a step: in bf16, autocast rounds products and convolutions only."""
    if precision == "bf16":
        return torch.autocast(device, torch.bfloat16)
    return contextlib.nullcontext()


def local_optimizer(work: Work) -> Callable[[Any, float], torch.optim.Optimizer]:
    """Return (parameters, learning rate) -> the work file's optimizer: plain SGD, or AdamW without decay."""
    if work.optimizer == "sgd":
        return torch.optim.SGD
    return functools.partial(torch.optim.AdamW, eps=ADAM_EPSILON, weight_decay=0.0)


def model(work: Work) -> torch.nn.Module:
    """Build the model of a work file; its method `loss` takes a batch of tensors by name."""
    if work.kind == "toy":
        from experiments.bench.rounds.peers.toy_torch import Toy

        return Toy(work.parameters)
    from experiments.bench.rounds.peers.tiny_torch import Tiny

    return Tiny(work)


@functools.cache
def load(path: str) -> tuple[Work, torch.nn.Module]:
    """Load a work file and its model once in a process, because Flower's workers serve many clients."""
    work = Work(path)
    return work, model(work)


def to_names(net: torch.nn.Module) -> Parameters:
    """Return the parameters as NumPy arrays by the names of the work file."""
    names = {name.removeprefix("held."): value for name, value in net.named_parameters()}
    return {name: np.asarray(value.detach().cpu()) for name, value in names.items()}

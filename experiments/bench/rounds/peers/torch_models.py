"""Losses of both workloads in torch."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.bench.rounds.peers.protocol import ADAM_EPSILON, Parameters, Work

# fp32 is fp32 for everyone: cuDNN would round to 19 bits by default.
torch.backends.cudnn.allow_tf32 = False


def rounding(device: str, precision: str) -> contextlib.AbstractContextManager:
    """bf16 rounds what autocast rounds: products and convolutions, not norms and losses."""
    if precision == "bf16":
        return torch.autocast(device, torch.bfloat16)
    return contextlib.nullcontext()


def local_optimizer(work: Work) -> Callable[[Any, float], torch.optim.Optimizer]:
    """(parameters, learning rate) -> plain SGD, or AdamW without decay, as the work file says."""
    if work.optimizer == "sgd":
        return torch.optim.SGD
    return functools.partial(torch.optim.AdamW, eps=ADAM_EPSILON, weight_decay=0.0)


def model(work: Work) -> torch.nn.Module:
    """The model of a work file, with `loss(batch of tensors by name)`."""
    if work.kind == "toy":
        from experiments.bench.rounds.peers.toy_torch import Toy

        return Toy(work.parameters)
    from experiments.bench.rounds.peers.tiny_torch import Tiny

    return Tiny(work)


@functools.cache
def kept(path: str) -> tuple[Work, torch.nn.Module]:
    """A work file and its model, read once in a process: Flower's workers serve many clients."""
    work = Work(path)
    return work, model(work)


def to_names(net: torch.nn.Module) -> Parameters:
    """NumPy arrays by name, as the work file has them."""
    names = {name.removeprefix("held."): value for name, value in net.named_parameters()}
    return {name: np.asarray(value.detach().cpu()) for name, value in names.items()}

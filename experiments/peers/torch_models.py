"""Losses of both workloads in torch."""

import functools

import numpy as np
import torch

from experiments.peers.protocol import Parameters, Work


def model(work: Work) -> torch.nn.Module:
    """The model of a work file, with `loss(batch of tensors by name)`."""
    if work.kind == "toy":
        from experiments.peers.toy_torch import Toy

        return Toy(work.parameters)
    from experiments.peers.tiny_torch import Tiny

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

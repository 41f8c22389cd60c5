"""A plain loop in torch: one client step after another, one client at a time."""

import contextlib

import torch

from experiments.peers.protocol import Work, arguments, serve
from experiments.peers.torch_models import model, to_names

options = arguments()
torch.set_num_threads(options.threads)
work = Work(options.work)
device = "cuda" if torch.cuda.is_available() else "cpu"
net = model(work).to(device)
batches = [
    [{name: torch.as_tensor(value).to(device) for name, value in work.batch(client, step).items()}
     for step in range(work.steps)]
    for client in range(work.clients)
]  # fmt: skip


def precise():
    """bf16 rounds what autocast rounds: products and convolutions, not norms and losses."""
    if options.precision == "bf16":
        return torch.autocast(device, torch.bfloat16)
    return contextlib.nullcontext()


def run_round():
    """All clients, one after another; the mean of where they end."""
    start = [parameter.detach().clone() for parameter in net.parameters()]
    total = [torch.zeros_like(value) for value in start]
    for client in batches:
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), start, strict=True):
                parameter.copy_(value)
        optimizer = torch.optim.SGD(net.parameters(), work.learning_rate)
        for batch in client:
            optimizer.zero_grad()
            with precise():
                loss = net.loss(batch)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for sum_, parameter in zip(total, net.parameters(), strict=True):
                sum_ += parameter / work.clients
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), total, strict=True):
            parameter.copy_(value)
    if device == "cuda":
        torch.cuda.synchronize()


serve(run_round, lambda: to_names(net), options.out)

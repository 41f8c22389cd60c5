"""Run a step of plain SGD in torch, in fp32 or under bf16 autocast."""

import torch

from experiments.bench.rounds.peers.protocol import Work, arguments, serve
from experiments.bench.rounds.peers.torch_models import local_optimizer, model, rounding, to_names

options = arguments()
torch.set_num_threads(options.threads)
work = Work(options.work)
device = "cuda" if torch.cuda.is_available() else "cpu"
net = model(work).to(device)
batch = {name: torch.as_tensor(value).to(device) for name, value in work.batch(0, 0).items()}
optimizer = local_optimizer(work)(net.parameters(), work.learning_rate)


def run_step():
    """Take one step."""
    optimizer.zero_grad()
    with rounding(device, options.precision):
        loss = net.loss(batch)
    loss.backward()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()


serve(run_step, lambda: to_names(net), options.out)

"""Run BlazeFL's rounds: clients on a pool of threads, which share the server's parameters without a copy.

Its authors' best setting (arXiv 2604.03606) is a Python without the global interpreter lock, a thread for
each core, and one thread of torch in each.
"""

import queue
import sys
import threading
from typing import NamedTuple

import torch
from blazefl.core import BaseServerHandler, ThreadPoolClientTrainer, deserialize_model, serialize_model

from experiments.bench.rounds.peers.protocol import Work, arguments, serve
from experiments.bench.rounds.peers.torch_models import local_optimizer, model, rounding, to_names

options = arguments()
if getattr(sys, "_is_gil_enabled", lambda: True)():
    sys.exit("BlazeFL's threads need a Python without the global interpreter lock: python3.14t")
torch.set_num_threads(1)
work = Work(options.work)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Trained(NamedTuple):
    """A client's parameters after its steps, flat."""

    client: int
    parameters: torch.Tensor


class Server(BaseServerHandler):
    """FedAvg over all clients, which have the same number of rows."""

    def __init__(self):
        self.net = model(work).to(device)
        self.answers: list[Trained] = []

    def downlink_package(self):
        return serialize_model(self.net, cpu=False)

    def sample_clients(self):
        return list(range(work.clients))

    def load(self, payload):
        self.answers.append(payload)
        return len(self.answers) == work.clients

    def global_update(self, buffer):
        mean = torch.zeros_like(buffer[0].parameters)
        for answer in sorted(buffer, key=lambda answer: answer.client):
            mean.add_(answer.parameters, alpha=1.0 / work.clients)
        deserialize_model(self.net, mean)
        self.answers = []


class Clients(ThreadPoolClientTrainer):
    """Local training in threads; each takes one of as many models, which are made once."""

    def __init__(self):
        self.num_parallels = min(options.threads, work.clients)
        self.device, self.device_count = device, torch.cuda.device_count()
        self.cache, self.stop_event = [], threading.Event()
        self.nets = queue.SimpleQueue()
        for _ in range(self.num_parallels):
            self.nets.put(model(work).to(device))

    def uplink_package(self):
        packages, self.cache = self.cache, []
        return packages

    def worker(self, cid, device, payload, stop_event):
        net = self.nets.get()
        net.to(device)
        deserialize_model(net, payload)
        optimizer = local_optimizer(work)(net.parameters(), work.learning_rate)
        for step in range(work.steps):
            optimizer.zero_grad()
            batch = {name: torch.as_tensor(value).to(device) for name, value in work.batch(cid, step).items()}
            with rounding(self.device, options.precision):
                loss = net.loss(batch)
            loss.backward()
            optimizer.step()
        trained = Trained(cid, serialize_model(net, cpu=False))
        self.nets.put(net)
        return trained


server, clients = Server(), Clients()


def run_round():
    """Train all clients and take the mean of their parameters."""
    clients.local_process(server.downlink_package(), server.sample_clients())
    for answer in clients.uplink_package():
        if server.load(answer):
            server.global_update(server.answers)
    if device == "cuda":
        torch.cuda.synchronize()


serve(run_round, lambda: to_names(server.net), options.out)

"""Run Flower's simulation: FedAvg over virtual clients in Ray workers."""

import os
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"

import logging

from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

from experiments.bench.rounds.peers.protocol import Work, answer, arguments, asked, end

logging.disable(logging.INFO)
options = arguments()
work = Work(options.work)
names = sorted(work.parameters)
started = [0.0]


def client_app(path: str, names: list[str]) -> ClientApp:
    """Build the clients. Each runs in any free worker; a worker reads the work file once."""

    class Client(NumPyClient):
        def __init__(self, client: int):
            self.client = client

        def fit(self, parameters, config):
            import torch

            from experiments.bench.rounds.peers.torch_models import load, to_names

            torch.set_num_threads(1)
            work, net = load(path)
            with torch.no_grad():
                own = {name.removeprefix("held."): value for name, value in net.named_parameters()}
                for name, value in zip(names, parameters, strict=True):
                    own[name].copy_(torch.tensor(value))
            optimizer = torch.optim.SGD(net.parameters(), work.learning_rate)
            for step in range(work.steps):
                optimizer.zero_grad()
                batch = work.batch(self.client, step)
                net.loss({name: torch.as_tensor(value) for name, value in batch.items()}).backward()
                optimizer.step()
            ended = to_names(net)
            return [ended[name] for name in names], work.steps, {}

    return ClientApp(client_fn=lambda context: Client(int(context.node_config["partition-id"])).to_client())


def between_rounds(server_round, parameters, config):
    """Answer the benchmark where Flower evaluates: before the first round and after every round."""
    if server_round == 0:
        answer({"ready": True})
    else:
        answer({"seconds": time.perf_counter() - started[0]})
    if not asked():
        end(dict(zip(names, parameters, strict=True)), options.out)
        os._exit(0)  # Flower has no way to stop early
    started[0] = time.perf_counter()
    return 0.0, {}


def server(context):
    """Build FedAvg over all clients."""
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=work.clients,
        min_available_clients=work.clients,
        initial_parameters=ndarrays_to_parameters([work.parameters[name] for name in names]),
        evaluate_fn=between_rounds,
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=10**6))


run_simulation(
    server_app=ServerApp(server_fn=server),
    client_app=client_app(os.path.abspath(options.work), names),
    num_supernodes=work.clients,
    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
)

"""Rules that Flower and pfl have equal theirs over ten rounds; skipped where these are not installed.

Tested with flwr 1.42.0, and with pfl 0.6.0 on torch 2.13.0. Three rules of theirs are others:

- Flower's FedAdam corrects its moments for one round too many, and its FedAdagrad divides by sqrt(v) + tau.
- Flower's FedYogi starts its second moment at 0; here it gets the tau^2 of Reddi et al. 2021.
- pfl's SCAFFOLD keeps variates of the wrong sign, (y - x) / (K eta), and diverges here.
"""

import os
import warnings

import numpy as np
import pytest

from fed import aggregation, server
from fed.algorithms.averaging import averaging, fedprox
from fed.algorithms.qfedavg import qfedavg
from fed.algorithms.robust import krum, median, trimmed_mean
from tests.fed.algorithms.regression import (
    COHORTS,
    RATE,
    WEIGHTS,
    Source,
    gradient,
    initial,
    simulate,
    vector,
)
from tests.fed.algorithms.test_references import EVERYONE, batches, local

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
TAU = server.ADAPTIVITY


def yogi(strategies):
    made = strategies.FedYogi(eta=0.1, beta_1=0.9, beta_2=0.99, tau=TAU)
    made.v_t = {"0": np.full(initial().shape, TAU**2)}
    return made


# name -> (ours, Flower's of its strategies, cohorts)
FLOWER = {
    "fedavg": (averaging(), lambda flower: flower.FedAvg(), COHORTS),
    "fedavgm": (
        averaging(server_optimizer=server.OPTIMIZERS["fedavgm"](0.3)),
        lambda flower: flower.FedAvgM(server_learning_rate=0.3, server_momentum=0.9),
        COHORTS,
    ),
    "fedyogi": (averaging(server_optimizer=server.OPTIMIZERS["fedyogi"](0.1)), yogi, COHORTS),
    "median": (median(), lambda flower: flower.FedMedian(), COHORTS),
    "trimmed-mean": (trimmed_mean(0.25), lambda flower: flower.FedTrimmedAvg(beta=0.25), COHORTS),
    "krum": (krum(1), lambda flower: flower.Krum(num_malicious_nodes=1), EVERYONE),
    "multi-krum": (
        krum(1, chosen=2),
        lambda flower: flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2),
        EVERYONE,
    ),
    "q-fedavg": (qfedavg(2.0), lambda flower: flower.QFedAvg(client_learning_rate=RATE, q=2.0), COHORTS),
}


def follow_flower(strategy, cohorts, weights):
    """Train clients in NumPy, and let Flower's strategy make the next model of their replies."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # as in one of Flower's processes
    x = initial()
    for index, cohort in enumerate(cohorts):
        strategy.current_arrays = {"0": x} if hasattr(strategy, "tau") else ArrayRecord([x])
        replies = []
        for i in cohort:
            loss = np.mean([gradient(x, batch)[1] for batch in batches(i, index)])
            metrics = MetricRecord({"num-examples": weights[i], "train_loss": float(loss)})
            content = RecordDict({"arrays": ArrayRecord([local(x, i, index)]), "metrics": metrics})
            replies.append(Message(content, dst_node_id=i, message_type="train"))
        arrays, _ = strategy.aggregate_train(index + 1, replies)
        (x,) = arrays.to_numpy_ndarrays()
    return x


@pytest.mark.parametrize("name", FLOWER)
def test_a_rule_equals_flowers(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("flwr")
        from flwr.serverapp import strategy
    ours, make, cohorts = FLOWER[name]
    weights = (1.0,) * len(WEIGHTS) if "krum" in name else WEIGHTS  # Flower's multi-Krum weighs by data
    expected = follow_flower(make(strategy), cohorts, weights)
    found = vector(simulate(ours, cohorts, Source(weights=weights))[-1].server.parameters)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


class Unchanging(Source):
    """Clients with the same batches in every round."""

    def client_batches(self, client_id, round_index):
        return super().client_batches(client_id, 0)


def follow_pfl(algorithm, parameters, **settings):
    """Run pfl's own loop over all clients."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor(initial(), dtype=torch.float32))

        def loss(self, x, y):
            return 0.5 * (torch.as_tensor(x) @ self.x[:-1] + self.x[-1] - torch.as_tensor(y)).square().mean()

        def metrics(self, x, y):
            return {}

    def dataset(user):
        held = list(Unchanging().client_batches(f"client{user}", 0))
        return Dataset(
            raw_data=[np.concatenate([batch[name] for batch in held]) for name in "xy"], user_id=user
        )

    model = Model()
    data = FederatedDataset(dataset, get_user_sampler("minimize_reuse", [str(i) for i in range(5)]))
    algorithm.run(
        algorithm_params=parameters(
            central_num_iterations=10,
            evaluation_frequency=100,
            train_cohort_size=5,
            val_cohort_size=0,
            **settings,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[]),
        model=PyTorchModel(
            model,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(model.parameters(), 1.0),
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=RATE, local_batch_size=4
        ),
        callbacks=[],
    )
    return model.x.detach().numpy().astype(np.float64)


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_an_algorithm_equals_pfls(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch")
        pytest.importorskip("pfl")
        from pfl.algorithm.base import NNAlgorithmParams
        from pfl.algorithm.federated_averaging import FederatedAveraging
        from pfl.algorithm.fedprox import FedProx, FedProxParams

        if name == "fedavg":
            ours, expected = (
                averaging(aggregation.uniform),
                follow_pfl(FederatedAveraging(), NNAlgorithmParams),
            )
        else:
            ours = fedprox(0.5, aggregation.uniform)
            expected = follow_pfl(FedProx(), FedProxParams, mu=0.5)
    found = vector(simulate(ours, EVERYONE, Unchanging())[-1].server.parameters)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)

"""Run pfl's FederatedAveraging in one process."""

import logging
import time

import torch

from experiments.bench.rounds.peers.protocol import Work, answer, arguments, asked, end
from experiments.bench.rounds.peers.torch_models import local_optimizer, model, rounding, to_names

logging.disable(logging.INFO)
options = arguments()
torch.set_num_threads(options.threads)

from pfl.aggregate.simulate import SimulatedBackend  # noqa: E402
from pfl.algorithm.base import NNAlgorithmParams  # noqa: E402
from pfl.algorithm.federated_averaging import FederatedAveraging  # noqa: E402
from pfl.callback.base import TrainingProcessCallback  # noqa: E402
from pfl.data.dataset import Dataset  # noqa: E402
from pfl.data.federated_dataset import FederatedDataset  # noqa: E402
from pfl.data.sampling import get_user_sampler  # noqa: E402
from pfl.hyperparam.base import NNTrainHyperParams  # noqa: E402
from pfl.metrics import Metrics  # noqa: E402
from pfl.model.pytorch import PyTorchModel  # noqa: E402

work = Work(options.work)
names = list(work.batches)
net = model(work)
rows = work.batches[names[0]].shape[2]
device = "cuda" if torch.cuda.is_available() else "cpu"
net.to(device)


def loss(*tensors, **_):
    """Compute the loss of a batch, whose columns pfl passes in order."""
    batch = dict(zip(names, (torch.as_tensor(t, device=device) for t in tensors), strict=True))
    with rounding(device, options.precision):
        return net.loss(batch)


def dataset(user):
    """Build a client's dataset: the rows of all its steps, in order."""
    columns = [work.batches[name][int(user)] for name in names]
    return Dataset(raw_data=[c.reshape(-1, *c.shape[2:]) for c in columns], user_id=str(user))


class BenchmarkCallback(TrainingProcessCallback):
    """Wait for the benchmark between rounds; pfl's loop calls it."""

    def __init__(self):
        self.started = time.perf_counter()

    def on_train_begin(self, *, model):
        answer({"ready": True})
        assert asked()
        self.started = time.perf_counter()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        answer({"seconds": time.perf_counter() - self.started})
        stop = not asked()
        self.started = time.perf_counter()
        return stop, Metrics()


class ModuleWithLoss(torch.nn.Module):
    """The model with the methods `loss` and `metrics` that pfl calls."""

    def __init__(self):
        super().__init__()
        self.net = net

    def loss(self, *tensors, **words):
        return loss(*tensors, **words)

    @torch.no_grad()
    def metrics(self, *tensors, **words):
        return {}


module = ModuleWithLoss()
data = FederatedDataset(dataset, get_user_sampler("minimize_reuse", list(range(work.clients))))
FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=10**6,
        evaluation_frequency=10**7,
        train_cohort_size=work.clients,
        val_cohort_size=0,
    ),
    backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[]),
    model=PyTorchModel(
        module,
        local_optimizer_create=local_optimizer(work),
        central_optimizer=torch.optim.SGD(module.parameters(), 1.0),
    ),
    model_train_params=NNTrainHyperParams(
        local_num_epochs=1, local_learning_rate=work.learning_rate, local_batch_size=rows
    ),
    callbacks=[BenchmarkCallback()],
)
end(to_names(net), options.out)

"""Run fedjax's own FedAvg through one of its for-each-client backends or this project's vmap backend."""

import warnings

import jax

from experiments.bench.rounds.peers.jax_models import adam, model
from experiments.bench.rounds.peers.protocol import Work, arguments, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fedjax

from fed.fedjax_compat import restore_removed_names
from fed.fedjax_vmap import vmap_backend

restore_removed_names()
options = arguments()
work = Work(options.work)
workload = model(work, options.form, options.precision)
gradient = jax.grad(workload.loss)
clients = {}
for client in range(work.clients):
    rows = {name: values[client].reshape(-1, *values.shape[3:]) for name, values in work.batches.items()}
    clients[f"{client:04d}".encode()] = rows
data = fedjax.InMemoryFederatedData(clients)
batch_size = next(iter(work.batches.values())).shape[2]
backend = vmap_backend(chunk=min(work.clients, 32)) if options.backend == "vmap" else options.backend
fedjax.set_for_each_client_backend(backend)
algorithm = fedjax.algorithms.fed_avg.federated_averaging(
    lambda parameters, batch, key: gradient(parameters, batch),
    fedjax.optimizers.sgd(work.learning_rate)
    if work.optimizer == "sgd"
    else fedjax.optimizers.create_optimizer_from_optax(adam(work)),
    fedjax.optimizers.sgd(1.0),
    fedjax.ShuffleRepeatBatchHParams(batch_size=batch_size, num_epochs=1, seed=0, skip_shuffle=True),
)
cohort = [(name, dataset, jax.random.PRNGKey(0)) for name, dataset in data.clients()]
state = algorithm.init(workload.parameters)


def run_round():
    """Train all clients."""
    global state
    state, _ = algorithm.apply(state, cohort)
    jax.block_until_ready(state.params)


serve(run_round, lambda: workload.to_names(state.params), options.out)

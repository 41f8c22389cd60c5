"""Run this project's jitted step of plain SGD, in place and without anything around it."""

from experiments.bench.rounds.peers.protocol import Work, arguments, serve
from experiments.process import xla_flags

options = arguments()
work = Work(options.work)
xla_flags.configure_xla(1, model="base", precision=options.precision)

# XLA reads its flags when jax is imported.
import jax  # noqa: E402

from experiments.bench.rounds.peers.jax_models import local_training, model  # noqa: E402

workload = model(work, options.form, options.precision)
training = local_training(workload, work)
step = jax.jit(training.step, donate_argnums=0)
carried, batch = training.start(workload.parameters), jax.device_put(work.batch(0, 0))


def run_step():
    """Take one step."""
    global carried
    carried = jax.block_until_ready(step(carried, batch))


serve(run_step, lambda: workload.to_names(carried[0]), options.out)

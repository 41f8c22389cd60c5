"""One jitted step of plain SGD in place: this project's, without anything around it."""

from experiments import runtime
from experiments.peers.protocol import Work, arguments, serve

options = arguments()
work = Work(options.work)
runtime.configure_xla(1, model="base", precision=options.precision)

# XLA reads its flags when jax is imported.
import jax  # noqa: E402

from experiments.peers.jax_models import model, sgd_step  # noqa: E402

held = model(work, options.form, options.precision)
step = jax.jit(sgd_step(held, work.learning_rate), donate_argnums=0)
parameters, batch = held.parameters, jax.device_put(work.batch(0, 0))


def run_step():
    """One step."""
    global parameters
    parameters = jax.block_until_ready(step(parameters, batch))


serve(run_step, lambda: held.to_names(parameters), options.out)

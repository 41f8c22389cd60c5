"""A toy objective and source: fast, with a codebook-free loss, unequal clients and exact keys."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fed.protocols import ClientPlan


class ToyObjective(NamedTuple):
    init: object
    value_and_grad: object


def toy_objective(noise: float = 0.1, dim: int = 5) -> ToyObjective:
    """A small tanh regression with noise from the key and a learnt running mean as state."""

    def init(key):
        first, second = jax.random.split(key)
        return (
            {"w": jax.random.normal(first, (dim, 8)), "v": jax.random.normal(second, (8,))},
            {"mean": jnp.zeros(dim)},
        )

    def value_and_grad(parameters, state, batch, key, step):
        weight = batch["weight"].sum()
        x = batch["x"] + noise * jax.random.normal(key, batch["x"].shape)

        def loss(parameters):
            hidden = jnp.tanh(x @ parameters["w"])
            error = jnp.square(hidden @ parameters["v"] - batch["y"]) * batch["weight"]
            return error.sum() / jnp.maximum(weight, 1.0)

        value, gradients = jax.value_and_grad(loss)(parameters)
        mean = (x * batch["weight"][:, None]).sum(0) / jnp.maximum(weight, 1.0)
        state = {"mean": 0.9 * state["mean"] + 0.1 * mean}
        return gradients, state, {"loss": (value * weight, weight), "steps": (jnp.float32(1), jnp.float32(1))}

    return ToyObjective(init, value_and_grad)


class ToySource:
    """Clients with `steps[i]` batches each; batches depend on client, round and step only."""

    def __init__(self, steps: list[int], dim: int = 5, batch: int = 4, poison: tuple[int, ...] = ()):
        self.steps = {f"client{i}": s for i, s in enumerate(steps)}
        self.dim, self.batch = dim, batch
        self.poison = {f"client{i}" for i in poison}

    def client_ids(self) -> list[str]:
        return list(self.steps)

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        steps = self.steps[client_id]
        return ClientPlan(steps, steps // 2, float(steps))

    def client_batches(self, client_id: str, round_index: int) -> Iterator[dict]:
        number = int(client_id.removeprefix("client"))
        for step in range(self.steps[client_id]):
            rng = np.random.default_rng((number, round_index, step))
            x = rng.standard_normal((self.batch, self.dim)).astype(np.float32)
            y = np.sin(x).sum(1).astype(np.float32) + np.float32(number)
            if client_id in self.poison:
                x[0, 0] = np.inf
            yield {
                "x": x,
                "y": y,
                "weight": np.ones(self.batch, np.float32),
            }

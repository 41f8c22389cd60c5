"""The part of `fed.check` that tries a source of data."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fed.protocols import ClientPlan, PyTree

MAX_STEPS, MAX_CLIENTS = 2, 3


class Broken(Exception):
    """A contract is broken, so that later ones cannot be tried."""


def called(what: str, function: Callable, *arguments: Any) -> Any:
    """Call the user's function; any error of it becomes one line."""
    try:
        return function(*arguments)
    except (Broken, KeyboardInterrupt):
        raise
    except Exception as error:  # any error of the user's function is a complaint
        first = (str(error).splitlines() or [""])[0]
        raise Broken(f"{what} fails: {type(error).__name__}: {first}") from error


class Few:
    """The first clients of a source, with at most two steps each; making it checks what they give."""

    def __init__(self, source: Any):
        for name in ("client_ids", "plan", "client_batches"):
            if not callable(getattr(source, name, None)):
                raise Broken(f"the source has no function {name}: see fed.protocols.ClientSource")
        self._source = source
        names = list(called("source.client_ids()", source.client_ids))
        if not names:
            raise Broken("source.client_ids() is empty: there are no clients")
        if len(set(names)) < len(names):
            raise Broken("source.client_ids() has a client twice: ids have to differ")
        if not all(isinstance(name, str) for name in names):
            raise Broken("source.client_ids() has ids that are no texts: use str(id)")
        plans = {name: called(f"source.plan({name!r}, 0)", source.plan, name, 0) for name in names[:100]}
        for name, plan in plans.items():
            if not isinstance(plan, ClientPlan):
                raise Broken(f"source.plan({name!r}, 0) gives {kind(plan)}: it has to be a ClientPlan")
            if plan.num_steps > 0 and not plan.weight > 0:
                raise Broken(
                    f"the plan of client {name} has steps and weight {plan.weight}: it has to be positive"
                )
        working = [name for name, plan in plans.items() if plan.num_steps > 0]
        if not working:
            raise Broken(
                f"none of the first {len(plans)} clients has a step to make: every plan has num_steps=0"
            )
        self._names, self._plans = working[:MAX_CLIENTS], plans
        if (resident := getattr(source, "resident", None)) is not None:
            self.resident = resident
        self._check_batches()

    def _check_batches(self) -> None:
        first = None
        for name in self._names:
            steps = self.plan(name, 0).num_steps
            batches = [batch for batch, _ in zip(self.client_batches(name, 0), range(steps), strict=False)]
            if len(batches) < steps:
                raise Broken(
                    f"client {name} planned {self._plans[name].num_steps} steps and gave "
                    f"{len(batches)} batches"
                )
            for batch in batches:
                shapes = jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), batch)
                if first is None:
                    first = shapes
                elif shapes != first:
                    raise Broken(
                        f"batches of client {name} have other shapes than the first one: pad them, or drop "
                        "the rest, so that all batches of a run are alike"
                    )

    def client_ids(self) -> list[str]:
        return self._names

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        held = self._plans[client_id]
        return held._replace(num_steps=min(held.num_steps, MAX_STEPS), loss_from_step=0)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        what = f"source.client_batches({client_id!r}, {round_index})"
        batches = called(what, lambda: iter(self._source.client_batches(client_id, round_index)))
        while (
            batch := called(what, next, batches, None)
        ) is not None:  # a generator fails at its first batch
            yield batch

    def first_batch(self) -> PyTree:
        """Read the first batch as the objective sees it."""
        batch = next(self.client_batches(self._names[0], 0))
        resident = getattr(self, "resident", None)
        if resident is None:
            return batch
        return called("source.resident.read(data, batch)", resident.read, resident.data, batch)


def kind(value: Any) -> str:
    """Name a value for a reader."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"

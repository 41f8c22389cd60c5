"""The platform that programs are lowered for: that of this process, unless `lowering_for` sets another.

A few operations have another form on CPU (`products`, `convolutions`). A program that is compiled for an
absent device must take that device's form, so those operations ask here and not jax.default_backend().
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

Platform = Literal["cpu", "gpu", "tpu"]

_asked_for: contextvars.ContextVar[Platform | None] = contextvars.ContextVar("platform", default=None)


def lowered_for() -> str:
    """Return the platform for which programs are traced now."""
    return _asked_for.get() or jax.default_backend()


@contextlib.contextmanager
def lowering_for(platform: Platform) -> Iterator[None]:
    """Trace programs for another platform inside this context.

    JAX does not trace a function again that it has traced before: make the objective inside the context.
    """
    token = _asked_for.set(platform)
    try:
        yield
    finally:
        _asked_for.reset(token)

"""The platform that programs are lowered for: this process's own, unless another one is asked for.

A few operations take another form on CPU (`products`, `convolutions`). A program compiled for a device
that is not here must take that device's form, so those places ask here and not jax.default_backend().
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

Platform = Literal["cpu", "gpu", "tpu"]

_asked_for: contextvars.ContextVar[Platform | None] = contextvars.ContextVar("platform", default=None)


def lowered_for() -> str:
    """The platform of programs traced now."""
    return _asked_for.get() or jax.default_backend()


@contextlib.contextmanager
def lowering_for(platform: Platform) -> Iterator[None]:
    """Trace for another platform.

    Functions that jax has traced already are not traced again: make the objective inside.
    """
    token = _asked_for.set(platform)
    try:
        yield
    finally:
        _asked_for.reset(token)

"""Count the tensors that an eager framework keeps for the backward pass: the accounting `autograd`.

Eager frameworks save tensors operation by operation, and free none before the backward pass has read it.
`RULES` lists the tensors that each operation saves (torch's rules). A `Tape` applies them to a graph of
operations that is written down by shape alone. A tensor that is saved twice counts once. Tensors that are not
saved (results of additions, for one) do not count, nor do parameters, gradients, workspaces and the
allocator's reserve.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

Precision = Literal["fp32", "mixed"]
Backend = Literal["cpu", "cuda"]

RULES = {
    "linear, convolution": "its input; in mixed precision in half precision, with a half copy of the weights",
    "product": "both operands",
    "normalisation": "its input, and mean and 1 / standard deviation per normalised row",
    "GELU": "its input",
    "softmax": "its output",
    "dropout": "its noise: numbers like its input on CPU, one byte an element on CUDA; nothing at rate 0",
    "cosine similarity": "both operands, both normalised operands at full size, and their norms twice",
    "gather": "its indices, 8 bytes each",
    "cross-entropy": "log-probabilities and targets",
    "addition, movement, scaling by a number": "nothing",
}
MIXED = {
    "cpu": "linear layers, convolutions and products in half precision; the rest takes what it is given",
    "cuda": "linear layers, convolutions and products in half precision; norms, softmax and losses in fp32",
}


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor of the graph: its shape and bytes per element."""

    shape: tuple[int, ...]
    itemsize: int = 4

    @property
    def bytes(self) -> int:
        """Return the bytes of its storage."""
        return math.prod(self.shape) * self.itemsize


class Tape:
    """Collect the tensors that the operations of one forward pass save, by scope.

    Attributes:
        rows: scope -> bytes, in the order of the forward pass.
    """

    def __init__(self, precision: Precision = "fp32", backend: Backend = "cpu"):
        self.rows: dict[str, int] = {}
        self._mixed = precision == "mixed"
        self._full_norms = self._mixed and backend == "cuda"
        self._byte_noise = backend == "cuda"
        self._saved: set[Tensor] = set()
        self._scope = ""

    @property
    def total(self) -> int:
        """Return the bytes of everything saved."""
        return sum(self.rows.values())

    @contextlib.contextmanager
    def within(self, scope: str) -> Iterator[None]:
        """Attribute saved tensors to a scope."""
        before, self._scope = self._scope, "/".join(filter(None, (self._scope, scope)))
        yield
        self._scope = before

    def save(self, *tensors: Tensor) -> None:
        """Keep tensors until the backward pass."""
        for tensor in tensors:
            if tensor not in self._saved:
                self._saved.add(tensor)
                self.rows[self._scope] = self.rows.get(self._scope, 0) + tensor.bytes

    def linear(self, x: Tensor, features: int) -> Tensor:
        """Apply x W + b with W [x's width, features]."""
        return self._weighted(x, x.shape[-1] * features, (*x.shape[:-1], features))

    def convolution(self, x: Tensor, weights: int, shape: tuple[int, ...]) -> Tensor:
        """Apply a convolution with a number of weights and the shape of its result."""
        return self._weighted(x, weights, shape)

    def product(self, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Multiply two tensors of the graph."""
        a, b = self._half(a), self._half(b)
        self.save(a, b)
        return Tensor(shape, a.itemsize)

    def normalise(self, x: Tensor, rows: int) -> Tensor:
        """Apply layer or group normalisation over `rows` rows."""
        x = self.full(x) if self._full_norms else x
        self.save(x, Tensor((rows,)), Tensor((rows,)))
        return Tensor(x.shape, x.itemsize)

    def gelu(self, x: Tensor) -> Tensor:
        """Apply an activation whose backward pass reads its input."""
        self.save(x)
        return Tensor(x.shape, x.itemsize)

    def softmax(self, x: Tensor) -> Tensor:
        """Apply an activation whose backward pass reads its result."""
        result = Tensor(x.shape, 4 if self._full_norms else x.itemsize)
        self.save(result)
        return result

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Apply dropout in training."""
        if rate == 0:
            return x
        self.save(Tensor(x.shape, 1 if self._byte_noise else x.itemsize))
        return Tensor(x.shape, x.itemsize)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Add two tensors."""
        return Tensor(a.shape, max(a.itemsize, b.itemsize))

    def _weighted(self, x: Tensor, weights: int, shape: tuple[int, ...]) -> Tensor:
        x = self._half(x)
        self.save(x)
        if self._mixed:
            self.save(Tensor((weights,), 2))
        return Tensor(shape, x.itemsize)

    def _half(self, x: Tensor) -> Tensor:
        return Tensor(x.shape, 2) if self._mixed and x.itemsize == 4 else x

    @staticmethod
    def full(x: Tensor) -> Tensor:
        """Return the tensor in fp32, as a copy where it has another type."""
        return x if x.itemsize == 4 else Tensor(x.shape, 4)

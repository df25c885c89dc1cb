"""The engine's view of a method that sees whole matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Union

from rammerge.engine.matrices.view import MatrixView
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """What data says of N matrices: second moments on their short side, over the tokens of prompts.

    Attributes:
        of_outputs: whether the short side is the outputs. Then the moments are of what each task vector adds to the
            outputs, X_t tau_t^T; else of the inputs X_t themselves.
        matrices: float64 [short, short] for each matrix, not divided by the number of tokens.
    """

    of_outputs: bool
    matrices: Sequence[Tensor]


@dataclass(frozen=True)
class Grams:
    """The inner products of the rows of N matrices [short, long]: all that a method sees of one tensor.

    Attributes:
        view: the tensor. If it is stored [long, short], the matrices are its transposed ones.
        pairs: (i, j) -> float64 [short, short], matrix i times the transposed matrix j, for i <= j. If the last matrix
            is an update that was made of the others, there are only (i, i) and the pairs with the last. If the method
            compares no matrices, there are only (i, i). A method may take out what it no longer needs, to make room.
        blocks: reads the matrices again, block by block of their long side, in float64.
        moments: what data says of them, for a method that needs it and a tensor of which there is any.
    """

    view: MatrixView
    pairs: dict[tuple[int, int], Tensor]
    blocks: Callable[[], Iterator[Sequence[Tensor]]]
    moments: Moments | None = None

    def __len__(self) -> int:
        return max(i for i, _ in self.pairs) + 1

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        i, j = pair
        return self.pairs[i, j] if i <= j else self.pairs[j, i].T

    @property
    def live(self) -> list[int]:
        """The matrices that are not zero."""
        return [at for at in range(len(self)) if bool(self[at, at].trace() > 0)]

    def total(self) -> Tensor:
        """Return the inner products of the rows of the matrices' sum."""
        found = self.pairs[0, 0].clone()
        for (i, j), gram in self.pairs.items():
            if j:
                found += gram if i == j else gram + gram.T
        return found


def added(matrices: Iterable[Tensor]) -> Tensor:
    """Return the sum of matrices, added in the given order. An iterator's are made one at a time."""
    left = iter(matrices)
    total = next(left).clone()
    for matrix in left:
        total += matrix
    return total


# What a method multiplies: each task vector, their sum, or what the rule's kernel makes of them. `rows` are task
# vectors too, of which a block is some rows.
Of = Literal["agents", "sum", "update", "rows"]
# Makes a block of the update from the same block of each matrix, float64 [short, length of the block].
OfBlock = Callable[[Sequence["Tensor"]], "Tensor"]


@dataclass(frozen=True)
class Factored:
    """A multiplier as the product of float64 [short, k] and [k, short], which are smaller than it and faster.

    A multiple of the identity may be added.
    """

    left: Tensor
    right: Tensor
    identity: float = 0.0

    def __matmul__(self, matrix: Tensor) -> Tensor:
        """Return its product with a matrix [short, n]."""
        product = self.left @ (self.right @ matrix)
        return product.add_(matrix, alpha=self.identity) if self.identity else product


Multiplier = Union["Tensor", Factored]
# Multipliers, float64 [short, short], one for each matrix that is multiplied; or what makes a block without any.
Solution = Sequence[Multiplier] | OfBlock


def times(matrix: Tensor, multiplier: Multiplier) -> Multiplier:
    """Return the product of float64 [short, short] and a multiplier."""
    if isinstance(multiplier, Factored):
        left = matrix @ multiplier.left
        if multiplier.identity:
            return torch.addmm(matrix, left, multiplier.right, beta=multiplier.identity)
        return Factored(left, multiplier.right)
    return matrix @ multiplier


@dataclass(frozen=True)
class MatrixMethod:
    """A method whose result is a sum of matrices, each multiplied from its short side, or made block by block.

    Attributes:
        solve: the formula.
        of: the matrices that are multiplied. With `update` the method is also given the inner products with each task
            vector, with `rows` those of each matrix with itself, from the side of the columns.
        matrices: (number of agents, tensor) -> how many float64 matrices [short, short] are held at once for it, the
            inner products and the multipliers included.
        takes: whether the tensor of a name is a matrix to it.
        compares: whether it needs the inner products of different task vectors, for a tensor. Else it is given those of
            each with itself.
        needs_moments: whether it sees what data says of the matrices.
        across: (tensor -> Frobenius norm of its update) -> factor of each update, by what all of them are; None if
            each matrix is merged for itself.
    """

    solve: Callable[[Grams], Solution]
    of: Of
    matrices: Callable[[int, MatrixView], float]
    takes: Callable[[str], bool] = lambda _name: True
    compares: Callable[[MatrixView], bool] = lambda _view: True
    needs_moments: bool = False
    across: Callable[[Mapping[str, float]], Mapping[str, float]] | None = None

    def view(self, name: str, shape: Sequence[int]) -> MatrixView:
        """Return a tensor as the method sees it."""
        rows, columns = shape
        return MatrixView(name, rows, columns, by_inputs=self.of == "rows")

    def applies(self, name: str, shape: Sequence[int]) -> bool:
        """Return whether the method merges the tensor of that name and shape."""
        return len(shape) == 2 and min(shape) > 1 and self.takes(name)


def method_for(methods: Sequence[MatrixMethod], name: str, shape: Sequence[int]) -> MatrixMethod | None:
    """Return the first method that merges the tensor of that name and shape; the rule's kernel merges the others."""
    return next((method for method in methods if method.applies(name, shape)), None)

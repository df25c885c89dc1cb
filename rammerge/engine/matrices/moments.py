"""What data says of matrices: second moments of a layer's inputs, or of what task vectors add to its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rammerge.activations.activations import Activations, LayerInputs
from rammerge.engine.matrices.method import Moments
from rammerge.engine.matrices.view import MatrixView
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows of activations that are seen at once. Sums go chunk by chunk, so this number decides the result's last bits.
CHUNK_TOKENS = 2048

# Reads a block of each task vector in float64 [short, length of the block].
Deltas = Callable[[slice], Sequence["Tensor"]]


def moments_of(
    view: MatrixView, agents: Sequence[str], activations: Activations, deltas: Deltas, device: str
) -> Moments | None:
    """Return the second moments of a tensor, None if there are no activations for it.

    Args:
        view: the tensor.
        agents: their names, in order. Each sees the prompts that are for it, or for all.
        activations: the inputs of layers.
        deltas: reads the task vectors, once for each `CHUNK_TOKENS` tokens where the outputs are the short side.
        device: where to compute.
    """
    layer = activations.layers.get(view.name)
    if layer is None:
        return None
    of_outputs = view.transposed == layer.inputs_first
    alike = not of_outputs and not activations.are_owned  # then one matrix is every agent's
    count = 1 if alike else len(agents)
    moments = [torch.zeros(view.short, view.short, dtype=torch.float64, device=device) for _ in range(count)]
    for start in range(0, activations.tokens, CHUNK_TOKENS):
        rows = slice(start, min(activations.tokens, start + CHUNK_TOKENS))
        chunk = _Chunk(activations, layer, rows, activations.owned(agents, rows), device)
        found = chunk.outputs(view, deltas, count) if of_outputs else chunk.inputs(view.short, count)
        for moment, part in zip(moments, found, strict=True):
            moment.addmm_(part.T, part)
    return Moments(of_outputs, moments * len(agents) if alike else moments)


class _Chunk:
    """Some tokens of the activations of one layer, as each agent sees them."""

    def __init__(
        self, activations: Activations, layer: LayerInputs, rows: slice, owned: Sequence[Tensor] | None, device: str
    ) -> None:
        self._activations, self._layer, self._rows, self._device = activations, layer, rows, device
        self._owned = None if owned is None else [each.to(device) for each in owned]

    def inputs(self, width: int, agents: int) -> Iterator[Tensor]:
        """Yield float64 [tokens, width] for each agent."""
        everything = self._read(slice(0, width))
        for agent in range(agents):
            yield self._seen(everything, agent)

    def outputs(self, view: MatrixView, deltas: Deltas, agents: int) -> list[Tensor]:
        """Return what each task vector adds to the outputs, float64 [tokens, width]."""
        tokens = self._rows.stop - self._rows.start
        found = [torch.zeros(tokens, view.short, dtype=torch.float64, device=self._device) for _ in range(agents)]
        for block in view.blocks():
            inputs = self._read(block)
            for agent, (added, matrix) in enumerate(zip(found, deltas(block), strict=True)):
                added.addmm_(self._seen(inputs, agent), matrix.T)
        return found

    def _read(self, columns: slice) -> Tensor:
        return self._activations.read(self._layer, self._rows, columns).to(self._device).double()

    def _seen(self, inputs: Tensor, agent: int) -> Tensor:
        return inputs if self._owned is None else inputs * self._owned[agent]

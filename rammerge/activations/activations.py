"""Recorded activations: the inputs of a model's linear layers, one row for each token of the prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rammerge.system.atomic import write_json
from rammerge.system.lazy import torch
from rammerge.system.reading import opened

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "activations.json"
_ITEMSIZE = 4


@dataclass(frozen=True)
class LayerInputs:
    """Where the inputs of one linear layer are.

    Attributes:
        file: name of the file: float32 [tokens, width], row after row. Layers that read the same tensor share it.
        width: the number of the layer's inputs.
        inputs_first: whether the weight is stored [inputs, outputs], and not [outputs, inputs].
    """

    file: str
    width: int
    inputs_first: bool


@dataclass(frozen=True)
class Activations:
    """The activations of a model on prompts.

    Attributes:
        directory: where they are.
        lengths: tokens of each prompt, in order.
        agents: the agent to which each prompt belongs, None for all.
        layers: name of a weight, as stored -> the inputs of its layer. Weights that are not here have none.
    """

    directory: Path
    lengths: tuple[int, ...]
    agents: tuple[str | None, ...]
    layers: Mapping[str, LayerInputs]

    @property
    def tokens(self) -> int:
        """The number of rows."""
        return sum(self.lengths)

    @property
    def are_owned(self) -> bool:
        """Whether a prompt belongs to one agent only."""
        return any(agent is not None for agent in self.agents)

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """Return what `write` left in a directory, or None if it did not get so far."""
        try:
            content = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        layers = {name: LayerInputs(**layer) for name, layer in content["layers"].items()}
        return cls(directory, tuple(content["lengths"]), tuple(content["agents"]), layers)

    def write(self) -> None:
        """Write the index, by which `open` knows that everything else is there."""
        layers = {name: vars(layer) for name, layer in self.layers.items()}
        content: dict[str, Any] = {"lengths": list(self.lengths), "agents": list(self.agents), "layers": layers}
        write_json(self.directory / INDEX, content)

    def read(self, layer: LayerInputs, rows: slice, columns: slice) -> Tensor:
        """Return a part of a layer's inputs, float32 [rows, columns].

        Raises:
            InputError: the file cannot be read or is too short.
        """
        path, part = self.directory / layer.file, (columns.stop - columns.start) * _ITEMSIZE
        memory = bytearray((rows.stop - rows.start) * part)
        whole = part == layer.width * _ITEMSIZE  # then rows follow one another
        step = len(memory) if whole else part
        with opened([path]) as read:
            for at, start in enumerate(range(0, len(memory), step or 1)):
                offset = ((rows.start + at) * layer.width + columns.start) * _ITEMSIZE
                read(path, offset, memoryview(memory)[start : start + step])
        found: Tensor = torch.frombuffer(memory, dtype=torch.float32)
        return found.view(rows.stop - rows.start, columns.stop - columns.start)

    def owned(self, agents: Sequence[str], rows: slice) -> list[Tensor] | None:
        """Return float64 [rows, 1] for each agent: 1 where a row is of a prompt for it, else 0; None if all are 1."""
        if not self.are_owned:
            return None
        owners = [owner for owner, length in zip(self.agents, self.lengths, strict=True) for _ in range(length)]
        ones = [[[float(owner in (None, name))] for owner in owners[rows]] for name in agents]
        return [torch.tensor(column, dtype=torch.float64) for column in ones]

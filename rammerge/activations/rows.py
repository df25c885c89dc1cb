"""The files that a recording fills: rows of activations, each written at its place as it flows by."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.activations.activations import LayerInputs
from rammerge.activations.layers import Layer
from rammerge.errors import InputError
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Rows:
    """Writes the inputs of layers, from hooks on several threads.

    Layers that read the same tensor, as queries, keys and values do, share the file of the first of them.
    """

    def __init__(self, directory: Path, layers: Sequence[Layer], prompts: int) -> None:
        """Make a file for each layer. `prompts` is their number."""
        self._layers, self._prompts = layers, prompts
        self._files = {layer.tensor: directory / f"{number}.f32" for number, layer in enumerate(layers)}
        for file in self._files.values():
            file.touch()
        self._own = threading.local()
        self._lock = threading.Lock()
        # How often each layer's inputs were written, or were those of another layer, over all prompts.
        self._written: Counter[str] = Counter()
        self._shared: dict[str, Counter[str]] = {layer.tensor: Counter() for layer in layers}

    @contextmanager
    def of(self, start: int, tokens: int) -> Iterator[None]:
        """Write what flows in this thread as the rows of one prompt, from row `start` on."""
        self._own.start, self._own.tokens = start, tokens
        self._own.calls, self._own.last = Counter(), None
        self._own.places = {}
        yield
        with self._lock:
            for tensor, place in self._own.places.items():
                if self._own.calls[tensor] == 1:
                    self._count(tensor, place)
        self._own.last = None

    def _count(self, tensor: str, place: str) -> None:
        if place == tensor:
            self._written[tensor] += 1
        else:
            self._shared[tensor][place] += 1

    def hook(self, layer: Layer) -> Callable[..., None]:
        """Return what is called before a layer, with its arguments."""

        def seen(_: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
            inputs = args[0] if args else named["input"]
            own = self._own
            own.calls[layer.tensor] += 1
            if own.calls[layer.tensor] > 1 or inputs.numel() != own.tokens * layer.width:
                return
            if own.last is None or own.last[0] is not inputs:
                own.last = (inputs, layer.tensor)  # held, so that no other tensor takes its place
                self._write(layer, inputs)
            own.places[layer.tensor] = own.last[1]

        return seen

    def _write(self, layer: Layer, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, layer.width).float().cpu().contiguous()
        if not bool(torch.isfinite(rows).all()):
            raise InputError(f"what flows into '{layer.tensor}' has a NaN or an infinity; the model is damaged")
        with self._files[layer.tensor].open("r+b") as file:
            file.seek(self._own.start * layer.width * rows.itemsize)
            file.write(rows.numpy().data)

    def finish(self) -> dict[str, LayerInputs]:
        """Return the layers that read every token of every prompt exactly once; the other files are removed."""
        found: dict[str, LayerInputs] = {}
        for layer in self._layers:
            everywhere = [layer.tensor] if self._written[layer.tensor] == self._prompts else []
            everywhere += [place for place, count in self._shared[layer.tensor].items() if count == self._prompts]
            for place in everywhere:
                found[layer.tensor] = LayerInputs(self._files[place].name, layer.width, layer.inputs_first)
        kept = {layer.file for layer in found.values()}
        for file in self._files.values():
            if file.name not in kept:
                file.unlink()
        return found

"""A form in which the weights of a model can lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.checkpoints.headers import TensorInfo


@dataclass(frozen=True)
class Form:
    """Weights of a model on disk, and how they are read.

    Attributes:
        name: what the user calls the form.
        where: the directory that holds it.
        files: the files that determine the tensors.
        read: plans the tensors, under the names that the files give them; they are computed when read.
        places: where configuration and tokenizer may lie; the first of them with a config.json serves.
        adapter: whether the files hold an adapter alone, which only a base makes whole.
        headers: the tensors of plain safetensors, which can be used as they lie there; None for other forms.
        doubtful: whether nothing but the tensors can tell that this is a model: a single file of an unusual name.
        masters: the dtype to which float32 weights are rounded where there is no base, if they are.
        export: what to do when the tensors do not fit, as the second half of a sentence.
    """

    name: str
    where: Path
    files: Sequence[Path]
    read: Callable[[], Mapping[str, LazyTensor]]
    places: Sequence[Path]
    adapter: bool = False
    headers: Callable[[], Mapping[str, TensorInfo]] | None = None
    doubtful: bool = False
    masters: str | None = None
    export: str = "export the whole model with save_pretrained"

    @property
    def title(self) -> str:
        """The form and where it lies, for messages."""
        first = self.files[0]
        return str(first) if len(self.files) == 1 else f"{self.name} in {self.where}"

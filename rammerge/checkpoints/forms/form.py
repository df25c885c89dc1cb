"""A form of a model's weights on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.checkpoints.stored import StoredSet


@dataclass(frozen=True)
class Form:
    """Weights of a model on disk, and how to read them.

    Attributes:
        name: the form's name for the user.
        where: the directory of the files.
        files: the files that determine the tensors.
        read: returns the tensors by their names in the files; each is computed when it is read.
        places: directories to look for configuration and tokenizer; the first one with a config.json is used.
        adapter: whether the files contain only an adapter, which needs a base.
        plain: the files of plain safetensors, which may be usable directly; None for other forms.
        doubtful: whether only the tensors can show that this is a model: a single file with an unusual name.
        masters: the dtype to which float32 weights are rounded if there is no base; None keeps them.
        export: what to do when the tensors do not fit, as the second half of a sentence.
    """

    name: str
    where: Path
    files: Sequence[Path]
    read: Callable[[], Mapping[str, LazyTensor]]
    places: Sequence[Path]
    adapter: bool = False
    plain: StoredSet | None = None
    doubtful: bool = False
    masters: str | None = None
    export: str = "export the whole model with save_pretrained"

    @property
    def title(self) -> str:
        """The form and its place, for messages."""
        first = self.files[0]
        return str(first) if len(self.files) == 1 else f"{self.name} in {self.where}"

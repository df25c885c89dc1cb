"""Opening a patch beside its base, as the checkpoint of the agent that it stands for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint, checkpoint_of
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.headers import TensorInfo, parse_header
from rammerge.checkpoints.patched.compiled import prepare
from rammerge.checkpoints.patched.container import Patch, read_patch, refuse
from rammerge.checkpoints.patched.originals import OriginalFile
from rammerge.checkpoints.patched.place import CONFIG
from rammerge.checkpoints.patched.tensors import PatchedTensor, patched_tensor
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DType
from rammerge.system.reading import quote, read_json_object


def open_patch(directory: Path, base: Checkpoint | None) -> Checkpoint:
    """Open the patch in `directory` as the agent: nothing is unpacked, its elements are computed when they are read.

    Raises:
        InputError: there is no base or a different one, or the patch is damaged.
    """
    patch = read_patch(directory.absolute())
    if base is None:
        raise InputError(
            f"{directory} is a patch, which only its base makes a model; use it as an agent with --base, or unpack it "
            "with `rammerge unpack`"
        )
    check_base(patch, base)
    originals = tuple(_original(patch, name, base) for name in patch.contents.weights)
    tensors: dict[str, TensorInfo] = {}
    for original in originals:
        for tensor in original.tensors:
            if tensor.name in tensors:
                raise refuse(patch.file, f"stores {quote(tensor.name)} twice")
            tensors[tensor.name] = tensor
    if not tensors:
        raise refuse(patch.file, "stores no tensors")
    prepare(_elements(tensors.values()))
    config = read_json_object(patch.file.parent / CONFIG)
    return replace(checkpoint_of(patch.file.parent, config, tensors), originals=originals)


def check_base(patch: Patch, base: Checkpoint) -> None:
    """Check that `base` is the one that the agent was packed against.

    Raises:
        InputError: it is a different one.
    """
    digest = digest_checkpoint(base).digest
    if digest != patch.contents.base:
        raise InputError(
            f"{patch.file.parent} was packed against a base with the digest {patch.contents.base[:12]} and "
            f"{base.source} has {digest[:12]}; give the base that it was packed against"
        )


def reference_of(name: str, base: Checkpoint, references: Mapping[str, str]) -> TensorInfo | None:
    """Return the base's tensor that the agent's tensor `name` is stored relative to."""
    wanted = references.get(name, name)
    return base.tensors.get(base.tied.get(wanted, wanted))


def _elements(tensors: Iterable[TensorInfo]) -> Counter[DType]:
    found: Counter[DType] = Counter()
    for tensor in tensors:
        found[tensor.dtype] += tensor.numel
    return found


def _original(patch: Patch, name: str, base: Checkpoint) -> OriginalFile:
    claimed, header = patch.contents.weights[name], patch.header(name)
    tensors: list[PatchedTensor] = []
    for tensor in parse_header(header, patch.file.with_name(name), claimed.size)[0].values():
        reference = reference_of(tensor.name, base, patch.contents.references)
        tensors.append(patched_tensor(patch, tensor, reference))
    return OriginalFile(name, patch.file, claimed, header, tuple(tensors))

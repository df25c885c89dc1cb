"""Opening a patch beside its base, as the checkpoint of the agent that it stands for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint, checkpoint_of
from rammerge.checkpoints.digest import claimed_digest, digest_checkpoint
from rammerge.checkpoints.headers import TensorInfo, parse_header
from rammerge.checkpoints.patched.compiled import prepare
from rammerge.checkpoints.patched.container import Patch, read_patch, refuse
from rammerge.checkpoints.patched.originals import OriginalFile
from rammerge.checkpoints.patched.place import CONFIG, is_patch
from rammerge.checkpoints.patched.tensors import PatchedTensor, patched_tensor
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DType
from rammerge.system.reading import quote, read_json_object

# A tensor of a patch at the end of a chain is computed from all before it.
MOST_LINKS = 32


def open_patch(directory: Path, base: Checkpoint | None, *, links: int = 1) -> Checkpoint:
    """Open the patch in `directory` as the agent: nothing is unpacked, its elements are computed when they are read.

    Args:
        directory: the patch. If it is relative to another patch's agent, that patch is opened too.
        base: the model that it, or the first patch of its chain, was packed against.
        links: how many patches of a chain end with this one.

    Raises:
        InputError: there is no base or a different one, or the patch is damaged, or one that it needs is missing.
    """
    patch = read_patch(directory.absolute())
    if base is None:
        raise InputError(
            f"{directory} is a patch, which only its base makes a model; use it as an agent with --base, or unpack it "
            "with `rammerge unpack`"
        )
    base = _base_of(patch, base, links)
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


def count_elements(directory: Path) -> int:
    """Return the number of elements of the agent of the patch in `directory`. This does not need the base.

    Raises:
        InputError: the patch is damaged.
    """
    patch = read_patch(directory)
    return sum(tensor.numel for name in patch.contents.weights for tensor in _headers(patch, name))


def chain_of(directory: Path) -> Iterator[Patch]:
    """Yield the patch in `directory`, and then each one that the one before is relative to.

    Raises:
        InputError: one is missing or damaged, or there are too many.
    """
    parent: Path | None = directory
    for number in count(1):
        if parent is None:
            return
        patch = read_patch(parent)
        yield patch
        parent = _parent_of(patch, number)


def _parent_of(patch: Patch, place: int) -> Path | None:
    """Return the patch whose agent a patch is relative to, None for the base. `place` counts from the chain's end."""
    if patch.contents.parent is None:
        return None
    here = patch.file.parent
    parent = here.with_name(patch.contents.parent)
    if place >= MOST_LINKS:
        raise InputError(f"{here} is the end of a chain of more than {MOST_LINKS} patches; pack a shorter one")
    if not is_patch(parent):
        raise InputError(f"{here} was packed against the agent of {parent}, which is not a patch; copy the whole chain")
    return parent


def _base_of(patch: Patch, base: Checkpoint, links: int) -> Checkpoint:
    """Return the model that a patch is relative to: `base`, or the agent of another patch."""
    expected, digest = patch.contents.base, digest_checkpoint(base).digest
    if digest == expected:
        return base
    parent = _parent_of(patch, links)
    if parent is None:
        raise InputError(
            f"{patch.file.parent} was packed against a base with the digest {expected[:12]} and "
            f"{base.source} has {digest[:12]}; give the base that it was packed against"
        )
    # The parent's claim about its weights is enough: if it were wrong, this patch's own SHA-256 would not be right.
    agent = open_patch(parent, base, links=links + 1)
    if (digest := claimed_digest(agent)) != expected:
        raise InputError(
            f"{patch.file.parent} was packed against an agent with the digest {expected[:12]} and that of {parent} has "
            f"{digest[:12]}; restore the patch that was there"
        )
    return agent


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
    tensors: list[PatchedTensor] = []
    for tensor in _headers(patch, name):
        reference = reference_of(tensor.name, base, patch.contents.references)
        tensors.append(patched_tensor(patch, tensor, reference))
    return OriginalFile(name, patch.file, patch.contents.weights[name], patch.header(name), tuple(tensors))


def _headers(patch: Patch, name: str) -> Iterable[TensorInfo]:
    """Return the tensors of an original file by its header."""
    size = patch.contents.weights[name].size
    return parse_header(patch.header(name), patch.file.with_name(name), size)[0].values()

"""The first steps: fetch base and agents, and refuse models that cannot be merged."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Self

from pydantic import BaseModel, ConfigDict

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.companions import compare_companions
from rammerge.checkpoints.digest import digest_checkpoint, digest_file
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import FETCH_VERSION
from rammerge.checkpoints.fetch import fetch as fetch_checkpoint
from rammerge.checkpoints.file_digest import FileDigest
from rammerge.checkpoints.mergeable import Resize, notes_of
from rammerge.checkpoints.patched.place import is_patch
from rammerge.errors import RammergeError
from rammerge.patches.keeping import unpacked
from rammerge.recipe import Output, is_commit
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from rammerge.system.status import directory_state
from tasks.runtime.progress import progress
from tasks.runtime.result import Result
from tasks.runtime.retries import DOWNLOAD_RETRIES
from tasks.runtime.step import step

# Agent -> members, for agents that are the mean of several checkpoints.
Groups = Mapping[str, Sequence[str]]

# Held while a family is opened.
_OPENING = Lock()


class Origin(BaseModel):
    """The origin of a checkpoint.

    Attributes:
        source: an absolute directory, or a hub id.
        revision: the revision on the hub.
        written: the source as the recipe writes it; reports and model cards show this.
        packed: whether a patch is used as it is, and not unpacked into the store.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    revision: str | None = None
    written: str
    packed: bool = False

    @property
    def identity(self) -> list[str | None]:
        """All fields, and for a directory the status of its files: a changed directory is a different origin."""
        given = [self.source, self.revision, self.written, directory_state(Path(self.source))]
        return [*given, "packed"] if self.packed else given


class Model(Result):
    """A model directory that transformers can load, or a patch that `in_files` makes one of.

    Attributes:
        path: the directory.
        digest: digest of weights and config.json, by `digest_checkpoint`.
        content: digest that also covers the files that a merge copies, such as tokenizer and chat template.
        source, revision: the model's origin; empty for a merged model.
        base: of a patch, the directory of the base that it can be unpacked with.
    """

    content: str
    source: str = ""
    revision: str | None = None
    base: Path | None = None

    @property
    def identity(self) -> list[str | None]:
        """Content and provenance, which a merged model's card repeats. The path does not count."""
        return [self.content, self.source, self.revision]

    @property
    def provenance(self) -> str:
        """Origin and digest of the model, for tags and parameters."""
        return f"{self.source}{f'@{self.revision}' if self.revision else ''} sha256:{self.digest}"


class Fetched(Model):
    """A model that has been fetched.

    Attributes:
        settled: whether the origin is a directory or a commit, and not a branch, which can move.
        state: the state of the files in `path`, by `directory_state`.
        notes: how it was found and converted, as sentences for the user.
        rank: the highest rank of the updates, for an agent that was an adapter.
    """

    settled: bool
    state: str | None
    notes: tuple[str, ...]
    rank: int | None = None

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `fetch` wrote."""
        record = json.loads((entry.path / "checkpoint.json").read_text(encoding="utf-8"))
        return cls(**record.pop("model"), **record)

    def holds(self) -> bool:
        """Return whether the directory is unchanged. For a branch the hub must be asked again."""
        return self.settled and self.state == directory_state(self.path)


@step(
    "fetch",
    version=(1, *FETCH_VERSION),
    run_name="fetch {name}",
    result=Fetched,
    ignore=["name"],
    retries=DOWNLOAD_RETRIES,
)
def fetch(out: Path, name: str, origin: Origin, base: Model | None = None) -> None:
    """Fetch a checkpoint, download and convert it if necessary, and digest it.

    Args:
        out: gets `checkpoint.json`.
        name: its name in the recipe.
        origin: its origin.
        base: for an agent, the base that it was trained from; a LoRA adapter is merged into it. A patch is unpacked
            with it, because models are evaluated from their files, or else when it is evaluated (`Origin.packed`).
    """
    opened_base = open_model(base) if base else None
    checkpoint = fetch_checkpoint(origin.source, origin.revision, base=opened_base, progress=partial(progress(), None))
    if checkpoint.originals is not None and opened_base is not None and not origin.packed:
        checkpoint = unpacked(checkpoint, opened_base)
    state = directory_state(checkpoint.path)
    digest, content = digests(checkpoint)
    model = Model(
        path=checkpoint.path,
        digest=digest,
        content=content,
        source=origin.written,
        revision=checkpoint.revision,
        base=opened_base.path if opened_base is not None and checkpoint.originals is not None else None,
    )
    settled = Path(origin.source).is_dir() or is_commit(origin.revision)
    record = {"settled": settled, "state": state, "notes": list(checkpoint.notes), "rank": checkpoint.rank}
    write_json(out / "checkpoint.json", {"model": model.model_dump(mode="json"), **record})


class Checked(Result):
    """The warnings of a preflight that found no reason to refuse the merge."""

    warnings: list[str]

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `preflight` wrote."""
        warnings = json.loads((entry.path / "preflight.json").read_text("utf-8"))
        return cls(path=entry.path, digest=entry.digest, warnings=warnings)


@step("preflight", version=4, run_name="preflight", result=Checked)
def preflight(
    out: Path,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    output: Output,
    notes: Mapping[str, Sequence[str]],
) -> None:
    """Refuse, with the fix, agents that cannot be merged into the base; write the warnings to `preflight.json`.

    Args:
        out: gets `preflight.json`.
        base: the base.
        agents: the agents, and the members of groups.
        groups: see `Plan`.
        output: how the merged models will be written.
        notes: how each agent was found and converted. The family repeats the notes of conversions only.
    """
    family = open_family(base, agents, groups, output.resize)
    warnings = [*notes_of(notes), *family.warnings, *compare_companions(family.sources, output.tokenizer)]
    write_json(out / "preflight.json", list(dict.fromkeys(warnings)))


def open_family(base: Model, agents: Mapping[str, Model], groups: Groups, resize: Resize) -> Family:
    """Return base and agents, opened and checked once in this process as long as their files stay the same.

    Raises:
        InputError: an agent cannot be merged into the base.
    """
    models = {"base": base, **agents}
    with _OPENING:  # the merges of all variants ask at the same time
        states = tuple(directory_state(model.path) for model in models.values())
        grouped = tuple((name, tuple(members)) for name, members in groups.items())
        return _open_family(tuple(models.items()), states, grouped, resize)


@lru_cache(maxsize=1)
def _open_family(
    models: Sequence[tuple[str, Model]],
    _states: Sequence[str | None],
    groups: Sequence[tuple[str, Sequence[str]]],
    resize: Resize,
) -> Family:
    base, *agents = models
    opened = open_model(base[1])
    members = {name: open_model(agent, opened) for name, agent in agents}
    return Family.open(opened, members, groups=dict(groups), resize=resize)


def open_model(model: Model, base: Checkpoint | None = None) -> Checkpoint:
    """Return a model as the library takes it; `base` is that of a patch."""
    if is_patch(model.path):
        opened = fetch_checkpoint(str(model.path), base=base)
        return replace(opened, source=model.source, revision=model.revision)
    return open_checkpoint(model.path, source=model.source, revision=model.revision)


def model_at(path: Path) -> Model:
    """Return the model directory `path` with its present content."""
    digest, content = digests(open_checkpoint(path))
    return Model(path=path, digest=digest, content=content)


def refuse_changed(model: Model) -> None:
    """Refuse results from a model whose files have changed since they were hashed.

    Raises:
        RammergeError: a file was changed, added or removed.
    """
    if model_at(model.path).content != model.content:
        raise RammergeError(f"{model.path} changed while the run used it; run again once nothing writes to it")


def digests(checkpoint: Checkpoint, known: Mapping[str, FileDigest] = {}) -> tuple[str, str]:
    """Return the digest of weights and config, and the digest that also covers the files that a merge copies.

    Files that are `known`, by their path in the directory, are not read.
    """
    weights = digest_checkpoint(checkpoint, known).digest
    files = {path.relative_to(checkpoint.path).as_posix(): path for path in checkpoint.sidecars}
    sidecars = [f"{name} {(known.get(name) or digest_file(path)).sha256}" for name, path in files.items()]
    return weights, hashlib.sha256("\n".join([weights, *sidecars]).encode()).hexdigest()

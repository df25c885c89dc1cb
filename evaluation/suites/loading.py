"""Open a suite directory, check it before any work, and digest it."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from evaluation.sandbox import find_sandbox
from evaluation.suites.splits import local_clusters, refuse_shared_clusters, refuse_shared_prompts
from evaluation.suites.taskfile import TaskFile, read_task_files
from rammerge.errors import InputError, closest
from rammerge.system.plugins import entry_points, is_reference, load_object
from rammerge.system.reading import read_yaml
from rammerge.system.schema import check

Split = Literal["validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_BUNDLED = Path(__file__).resolve().parent / "bundled"
_FILE = "suite.yaml"


class Sampling(BaseModel):
    """Several answers to each item, drawn from the model's distribution; an item's score is the mean of theirs.

    Attributes:
        repeats: answers to each item.
        temperature: what logits are divided by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    repeats: int = Field(ge=2, le=1000)
    temperature: float = Field(gt=0, le=10)

    def __str__(self) -> str:
        """Return what reports call it."""
        return f"{self.repeats} answers at temperature {self.temperature:g}"


@dataclass(frozen=True)
class Suite:
    """One domain's evaluation: lm-eval tasks for each split, and the metric that scores an item in [0, 1].

    `task_files` holds the suite's own tasks by name; a name in `tasks` that is not there is one of lm-eval's library.
    Items with the same value of the key `cluster` are related. Without `sampling` decoding is greedy.
    `sandbox` is the name and version of what runs the programs that models write, where the suite asks for programs.
    """

    name: str
    title: str
    domain: str
    metric: str
    tasks: Mapping[Split, tuple[str, ...]]
    apply_chat_template: bool
    cluster: str | None
    sampling: Sampling | None
    sandbox: str | None
    path: Path
    digest: str
    task_files: Mapping[str, TaskFile]

    @property
    def uses_library(self) -> bool:
        """Whether a task comes from lm-eval's library, which takes seconds to index and may need the network."""
        return any(task not in self.task_files for tasks in self.tasks.values() for task in tasks)


def available_suites() -> list[str]:
    """Return the names of the suites that come with rammerge, sorted."""
    return sorted(path.parent.name for path in _BUNDLED.glob(f"*/{_FILE}"))


def load_suite(name_or_path: str | Path, *, relative_to: Path | None = None, trusted: Collection[str] = ()) -> Suite:
    """Return the suite of that name, or the suite in that directory.

    Args:
        name_or_path: a bundled suite; a directory; an entry point of the group `rammerge.suites` of an installed
            package; or `module:name`. An entry point and a module give the path of a suite's directory.
        relative_to: where a relative path begins and a trusted module may lie; by default the working directory.
        trusted: modules whose code may run.

    Raises InputError if there is no such suite, or if its files are malformed.
    """
    name = str(name_or_path)
    if name in available_suites():
        return _open(_BUNDLED / name)
    path = (relative_to or Path()) / Path(name).expanduser()
    if path.is_dir():
        return _open(path.resolve())
    if is_reference(name):
        return _open_named(load_object(name, what="suite", trusted=trusted, directory=relative_to), name)
    offered = entry_points("rammerge.suites", what="suite")
    if name in offered:
        return _open_named(offered[name](), name)
    known = [*available_suites(), *offered]
    raise InputError(
        f"unknown suite '{name}'{closest(name, known)}: name one of {', '.join(known)}, or give the path of a "
        f"directory with a {_FILE}"
    )


def _open_named(found: object, name: str) -> Suite:
    if not isinstance(found, str | Path) or not Path(found).is_dir():
        raise InputError(
            f"the suite '{name}' must be the path of a directory with a {_FILE}, not {found!r}; correct it"
        )
    return _open(Path(found).resolve())


class _Tasks(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)


class _SuiteFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    title: str
    domain: str
    metric: str = "acc"
    apply_chat_template: bool = False
    cluster: str | None = Field(default=None, min_length=1)
    sampling: Sampling | None = None
    sandbox: bool = False
    tasks: _Tasks


def _open(path: Path) -> Suite:
    file = path / _FILE
    content = check(_SuiteFile, _read_yaml(file), str(file))
    both = sorted(set(content.tasks.validation) & set(content.tasks.test))
    if both:
        raise InputError(
            f"{file}: the task '{both[0]}' is in both splits, but nothing may be selected on the items it is reported "
            f"on: give validation and test different tasks"
        )
    task_files = read_task_files(path)
    suite = Suite(
        name=content.name,
        title=content.title,
        domain=content.domain,
        metric=content.metric,
        tasks=MappingProxyType({split: getattr(content.tasks, split) for split in SPLITS}),
        apply_chat_template=content.apply_chat_template,
        cluster=content.cluster,
        sampling=content.sampling,
        sandbox=find_sandbox().label if content.sandbox else None,
        path=path,
        digest=_digest(path, (file for task in task_files.values() for file in task.files)),
        task_files=MappingProxyType(task_files),
    )
    _keep_splits_apart(suite)
    return suite


def _keep_splits_apart(suite: Suite) -> None:
    validation, test = (
        [suite.task_files[task] for task in suite.tasks[split] if task in suite.task_files] for split in SPLITS
    )
    refuse_shared_prompts(suite.path, validation, test)
    if (field := suite.cluster) is not None:
        refuse_shared_clusters(suite.path, field, local_clusters(validation, field), local_clusters(test, field))


def _read_yaml(file: Path) -> Any:
    if not file.exists():
        raise InputError(f"{file.parent} is not a suite: it has no {file.name}")
    return read_yaml(file, yaml.SafeLoader)


def _digest(path: Path, named: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of the suite's files, sorted: editing any of them makes a different suite.

    The suite's files are those in its directory, and those that a task names elsewhere, which count by content alone.
    """
    digest = hashlib.sha256()
    inside = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_incidental(file.relative_to(path))]
    for file in inside:
        digest.update(f"{file.relative_to(path).as_posix()}\0{_digest_file(file)}\n".encode())
    elsewhere = {file.resolve() for file in named} - {file.resolve() for file in inside}
    for content in sorted(_digest_file(file) for file in elsewhere if file.is_file()):
        digest.update(f"\0{content}\n".encode())
    return digest.hexdigest()


def _is_incidental(inside: Path) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in inside.parts)


def _digest_file(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

"""The keys of a suite's suite.yaml, and the digest of its files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from evaluation.suites.fetching import Wheel
from rammerge.errors import InputError
from rammerge.system.reading import read_yaml
from rammerge.system.schema import check

FILE = "suite.yaml"
# What stands beside the suites' names in tables, metrics and gates.
RESERVED = ("average", "each", "worst")

Split = Literal["validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


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


class EnvironmentClass(BaseModel):
    """What a suite.yaml says of an environment.

    Attributes:
        name: its class, `module.Class`.
        turns: the most answers to an item.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(alias="class", pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")
    turns: int = Field(ge=1, le=1000)


class _Tasks(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)


class SuiteFile(BaseModel):
    """What a suite.yaml says; docs/suites.md explains the keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    title: str
    domain: str
    metric: str = "acc"
    apply_chat_template: bool = False
    cluster: str | None = Field(default=None, min_length=1)
    sampling: Sampling | None = None
    sandbox: bool = False
    environment: EnvironmentClass | None = None
    licence: str | None = None
    wheel: Wheel | None = None
    tasks: _Tasks


def read_suite_file(file: Path) -> SuiteFile:
    """Return the content of a suite.yaml; InputError if it is missing or malformed, or has a reserved name."""
    if not file.exists():
        raise InputError(f"{file.parent} is not a suite: it has no {file.name}; give a directory that has one")
    content = check(SuiteFile, read_yaml(file, yaml.SafeLoader), str(file))
    if content.name in RESERVED:
        raise InputError(f"{file}: a suite cannot be called '{content.name}', a word with a meaning here; rename it")
    return content


def digest_suite(path: Path, named: Iterable[Path]) -> str:
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

"""rammerge.json: the origin, the settings and the files of a merged model, and checking the files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from rich.filesize import decimal

from rammerge.checkpoints.digest import sha256_file
from rammerge.checkpoints.file_digest import FileDigest
from rammerge.errors import InputError, RammergeError
from rammerge.overlap import Survival
from rammerge.publishing.identity import Settings
from rammerge.system.atomic import write_json
from rammerge.system.paths import exists
from rammerge.system.reading import read_json_object
from rammerge.system.tables import Shown, Table

MANIFEST = "rammerge.json"
_SHORT = 12  # characters of a digest, which tell it from others


@dataclass(frozen=True)
class SourceRecord:
    """Where one checkpoint came from and what it was.

    Attributes:
        source: as the user named it.
        revision: commit SHA when it came from a hub.
        digest: of its content.
        files: the files that the digest covers.
        licence: what its model card or its LICENSE file says, as model hubs call it.
    """

    source: str
    revision: str | None
    digest: str
    files: Mapping[str, FileDigest]
    licence: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, without a licence that is not known."""
        return {name: value for name, value in asdict(self).items() if name != "licence" or value}


@dataclass(frozen=True, repr=False)
class Manifest(Shown):
    """The content of rammerge.json. Nothing in it depends on when, where or how fast the merge ran.

    Attributes:
        rammerge: the version that merged.
        settings: what it was asked to do.
        formula: where the method's formula comes from.
        sources: `base`, and the agents by name, in the order of summation.
        elements: float elements of the model.
        factors: each agent's lambda, when the method has one for the whole model.
        survival: what the output dtype kept.
        versions: of the packages that the bytes may depend on.
        overlap: `Overlap.summary`, when overlap was counted.
        notes: what was found in the merge and should be read, one sentence each.
        files: each file of the model directory, but for this one.
    """

    rammerge: str
    settings: Settings
    formula: str
    sources: Mapping[str, SourceRecord]
    elements: int
    factors: Mapping[str, float] | None
    survival: Survival
    versions: Mapping[str, str]
    overlap: Mapping[str, Mapping[str, Any]] | None = None
    notes: Sequence[str] = ()
    files: Mapping[str, FileDigest] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the rammerge.json of a model directory.

        Raises:
            InputError: there is none, or rammerge did not write it.
        """
        path = directory / MANIFEST
        if not exists(path):
            raise InputError(f"{directory} has no {MANIFEST}; give a directory that `rammerge merge` wrote")
        try:
            return cls.from_json(read_json_object(path))
        except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged; merge again") from error

    def parts(self) -> list[Table | str]:
        """Return what a shell or a notebook shows."""
        rows = [
            [name, source.source, (source.revision or "-")[:_SHORT], source.digest[:_SHORT]]
            for name, source in self.sources.items()
        ]
        settings = self.settings
        method = settings.method if settings.preset is None else f"{settings.method}, preset {settings.preset}"
        size = decimal(sum(file.size for file in self.files.values()))
        return [
            Table(["", "source", "revision", "digest"], rows, f"Merged by rammerge {self.rammerge}"),
            f"{method}: {', '.join(f'{name} {value}' for name, value in settings.params.items()) or 'no parameters'}",
            *settings.exceptions(),
            f"{self.elements:,} elements in {settings.dtype}; {len(self.files)} files, {size}",
        ]

    def record_files(self, model: Path, known: Mapping[str, str]) -> Self:
        """Return the manifest with the files of the directory `model`, hashed unless `known` has the SHA-256."""
        paths = sorted(path for path in model.rglob("*") if path.is_file() and path.name != MANIFEST)
        files = {}
        for path in paths:
            name = path.relative_to(model).as_posix()
            files[name] = FileDigest(path.stat().st_size, known.get(name) or sha256_file(path))
        return replace(self, files=files)

    def write(self, directory: Path) -> None:
        """Write the rammerge.json of a model directory."""
        write_json(directory / MANIFEST, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        settings = self.settings
        content = {
            "rammerge": self.rammerge,
            "recipe": settings.to_json(),
            "method": {**settings.method_json(), "source": self.formula},
            "sources": {name: source.to_json() for name, source in self.sources.items()},
            "order": list(self.sources),
            "elements": self.elements,
            "lambda": self.factors,
            "rounding_report": self.survival.to_json(),
            "notes": list(self.notes),
            "versions": dict(self.versions),
            "files": {name: asdict(file) for name, file in self.files.items()},
        }
        return content if self.overlap is None else content | {"overlap": self.overlap}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it did not write this.
        """
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in content["files"]):
            raise ValueError("a file outside of the directory")
        written = content["sources"]
        sources = {
            name: SourceRecord(**{**written[name], "files": _read_files(written[name]["files"])})
            for name in content.get("order", written)  # earlier versions wrote no order
        }
        return cls(
            rammerge=content["rammerge"],
            settings=Settings(**content["recipe"]),
            formula=content["method"]["source"],
            sources=sources,
            elements=content["elements"],
            factors=content["lambda"],
            survival=Survival.from_json(content["rounding_report"]),
            versions=content["versions"],
            overlap=content.get("overlap"),
            notes=tuple(content.get("notes", ())),
            files=_read_files(content["files"]),
        )


def verify(directory: Path) -> Manifest:
    """Compare each file of a merged model with its SHA-256 in rammerge.json, and return the manifest.

    Raises:
        InputError: the directory has no readable rammerge.json.
        RammergeError: a file is missing, differs or was added; the message names the first one.
    """
    manifest = Manifest.read(directory)
    for name, known in sorted(manifest.files.items()):
        file = directory / name
        if not file.is_file():
            raise RammergeError(f"{file} is missing though {MANIFEST} lists it; merge again or restore it")
        if file.stat().st_size != known.size or sha256_file(file) != known.sha256:
            raise RammergeError(f"{file} differs from what was merged (its SHA-256 is not {MANIFEST}'s); merge again")
    present = {file.relative_to(directory).as_posix() for file in directory.rglob("*.safetensors")}
    for name in sorted(present - manifest.files.keys()):
        raise RammergeError(
            f"{directory / name} was added after the merge; remove it, loaders may take it for the model's"
        )
    return manifest


def _read_files(content: Mapping[str, Any]) -> dict[str, FileDigest]:
    return {name: FileDigest(entry["size"], entry["sha256"]) for name, entry in content.items()}

"""Releases: the versions of a merged model that are registered in MLflow.

A version is registered by reference: its weights are hard links to the store's, beside the MLmodel file that MLflow
needs to load them. `challenger` is the last registered version that is not promoted, `champion` the version in use, and
`previous` the champion before it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError, RammergeError, closest
from rammerge.publishing.manifest import MANIFEST, verify
from rammerge.system.locks import locked
from tasks.records.aliases import CHALLENGER, CHAMPION, Move, move_aliases, read_aliases
from tasks.records.connection import client, lock_file
from tasks.records.files import local_path, verify_files
from tasks.records.layout import lay
from tasks.records.listing import every_model, every_version
from tasks.records.trouble import explained

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TAG_DIGEST = "rammerge.digest"
TAG_VARIANT = "rammerge.variant"
TAG_GATES = "rammerge.gates"
TAG_WEIGHTS = "rammerge.weights"
TAG_RUN = "rammerge.run"
# Who is told what becomes of the version, as the recipe says.
TAG_NOTIFY = "rammerge.notify"
# The hub repository that it is pushed to once it serves, as the recipe says.
TAG_PUSH = "rammerge.push"
TAG_FILES = "rammerge.files"


class Release(BaseModel):
    """A registered version.

    Attributes:
        name: registered model.
        version: MLflow's number.
        aliases: sorted.
        path: directory with the MLmodel file, or a URI when MLflow keeps its artifacts elsewhere.
        run_id: the variant's MLflow run.
        tags: recorded at registration: digests, sources, the gates' outcome.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    aliases: tuple[str, ...]
    path: str
    run_id: str
    created: float
    tags: dict[str, str]

    @property
    def uri(self) -> str:
        """The argument for `mlflow.transformers.load_model`."""
        return f"models:/{self.name}/{self.version}"


@explained()
def releases(name: str) -> list[Release]:
    """Return the versions of the registered model `name`, newest first; InputError if it does not exist."""
    mlflow = client()
    require_model(mlflow, name)
    return _releases(mlflow, name)


def find_release(name: str, digest: str) -> Release | None:
    """Return the newest version of `name` with the content `digest` whose files still exist, or None."""
    return next((r for r in _releases_if_any(name) if r.tags.get(TAG_DIGEST) == digest and _is_loadable(r)), None)


def find_champion(name: str) -> Release | None:
    """Return the champion of `name`, or None if the model or a champion does not exist."""
    return champion_among(_releases_if_any(name))


def champion_among(versions: Iterable[Release]) -> Release | None:
    """Return the champion among all versions of a registered model, or None."""
    return next((release for release in versions if CHAMPION in release.aliases), None)


def register(name: str, model: Path, *, digest: str, run_id: str, description: str, tags: Mapping[str, str]) -> Release:
    """Register the model directory `model` under `name` as the challenger, unless its content is registered already.

    A version that is registered already gets the new tags.

    Args:
        name: registered model, which is created if missing.
        model: directory that transformers can load.
        digest: digest of the content; the same digest is never registered twice.
        run_id: the MLflow run for the files.
        description: Markdown for the dashboard.
        tags: recorded on the version.
    """
    mlflow = client()
    with locked(lock_file("aliases")):
        if found := find_release(name, digest):
            return _retagged(mlflow, found, tags)
        if name not in _names(mlflow):
            mlflow.create_registered_model(
                name, description="Merged by rammerge; champion, challenger and previous are its aliases."
            )
        laid = lay(mlflow.get_run(run_id), mlflow, model)
        version = mlflow.create_model_version(
            name,
            source=laid.source,
            run_id=run_id,
            tags={**tags, TAG_DIGEST: digest, TAG_FILES: laid.files},
            description=description,
        )
        seen = read_aliases(mlflow.get_registered_model(name))
        move_aliases(mlflow, name, Move(aliases={CHALLENGER: int(version.version)}), seen=seen)
        aliases = read_aliases(mlflow.get_registered_model(name))
        return _release(mlflow.get_model_version(name, version.version), aliases)


def _retagged(mlflow: "MlflowClient", release: Release, tags: Mapping[str, str]) -> Release:
    """Let a version that a later run made again say what that run found."""
    for tag, value in tags.items():
        if release.tags.get(tag) != value:
            mlflow.set_model_version_tag(release.name, str(release.version), tag, value)
    return release.model_copy(update={"tags": {**release.tags, **tags}})


def _is_loadable(release: Release) -> bool:
    root = local_path(release.path)
    return root is None or (root / "MLmodel").is_file()


def require_intact(release: Release) -> str:
    """Read every file of a version that is to serve, and compare it with what was registered.

    Returns:
        What to add to the sentence that the version serves: nothing, or which files could not be compared.

    Raises:
        InputError: a file is gone, differs or was added.
    """
    who = f"{release.name} version {release.version} cannot serve"
    if not _is_loadable(release):
        raise InputError(f"{who}: {release.path} is gone; run the recipe again")
    try:
        if files := release.tags.get(TAG_FILES):
            verify_files(release.path, files)
            return ""
        # Registered by a release of rammerge that listed only the files that it had merged.
        root = local_path(release.path)
        if root is not None and (root / "model" / MANIFEST).is_file():
            verify(root / "model")
            return " (files of MLflow's own were not recorded at its registration and are not verified)"
    except RammergeError as error:
        raise InputError(f"{who}: {error}") from None
    return " (its files were not recorded at its registration and are not verified)"


@explained()
def _releases_if_any(name: str) -> list[Release]:
    mlflow = client()
    return _releases(mlflow, name) if name in _names(mlflow) else []


def _releases(mlflow: "MlflowClient", name: str) -> list[Release]:
    found = every_version(mlflow, f"name='{name}'")
    aliases = read_aliases(mlflow.get_registered_model(name))
    return sorted((_release(version, aliases) for version in found), key=lambda release: -release.version)


def _names(mlflow: "MlflowClient") -> list[str]:
    return [model.name for model in every_model(mlflow)]


def require_model(mlflow: "MlflowClient", name: str) -> None:
    """Raise InputError, with the nearest name, unless a registered model is called `name`."""
    names = _names(mlflow)
    if name not in names:
        hint = closest(name, names) or (
            "; registered: " + ", ".join(sorted(names)) if names else "; run a recipe first"
        )
        raise InputError(f"no registered model is called '{name}'{hint}")


def get_release(name: str, version: int) -> Release:
    """Return `version` of the registered model `name`; InputError if there is none."""
    found = releases(name)
    for release in found:
        if release.version == version:
            return release
    raise InputError(f"{name} has no version {version}; it has {', '.join(str(r.version) for r in found) or 'none'}")


def _release(version: "ModelVersion", aliases: Mapping[str, int]) -> Release:
    number = int(version.version)
    source = local_path(str(version.source))
    return Release(
        name=version.name,
        version=number,
        aliases=tuple(sorted(alias for alias, pointed in aliases.items() if pointed == number)),
        path=str(source or version.source),
        run_id=str(version.run_id or ""),
        created=version.creation_timestamp / 1000,
        tags=dict(version.tags),
    )

"""Releases: registered versions of a merged model in MLflow, and the aliases that say which one serves.

A version is registered by reference: its weights are hard links to the store's, beside the MLmodel file that MLflow
needs to load them. `challenger` is what was registered last and not (yet) promoted, `champion` what serves, and
`previous` what served before. Aliases change under one lock, in an order in which a kill leaves a champion.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError, RammergeError, closest
from rammerge.publishing.publish import MANIFEST, verify
from rammerge.system.home import home
from rammerge.system.locks import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
TAG_DIGEST = "rammerge.digest"
TAG_ROLLED_BACK = "rammerge.rolled_back"
ARTIFACT = "model"


class Release(BaseModel):
    """A registered version.

    Attributes:
        name: registered model.
        version: MLflow's number.
        aliases: sorted.
        path: directory with the MLmodel file, or a URI when MLflow keeps its artifacts elsewhere.
        run_id: the variant's MLflow run.
        tags: what was recorded at registration (digests, sources, gate outcome).
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
        """What `mlflow.transformers.load_model` takes."""
        return f"models:/{self.name}/{self.version}"


class Promotion(BaseModel):
    """A change of the champion, or the reason why there was none."""

    model_config = ConfigDict(frozen=True)

    name: str
    champion: int | None
    previous: int | None
    changed: bool
    sentence: str


def client() -> "MlflowClient":
    """Return a client of the tracking server that the environment names; the local database by default."""
    from mlflow import MlflowClient

    with locked(_lock("database")):  # two processes cannot make the tables at once
        _make_database(os.environ.get("MLFLOW_TRACKING_URI", ""))
        mlflow = MlflowClient()
        mlflow.search_registered_models(max_results=1)
    return mlflow


def _make_database(uri: str) -> None:
    """Make the SQLite database that `uri` names, if it is missing: whole or not at all.

    MLflow makes its tables one by one; a kill or a full disk on the way would leave a file that it never opens again.
    """
    from mlflow import MlflowClient
    from sqlalchemy import make_url

    database = make_url(uri).database if uri.startswith("sqlite:") else None
    path = Path(database or ":memory:")
    if path.name == ":memory:" or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.new*"):
        shutil.rmtree(left)
    # Another name for each attempt: MLflow remembers the connections to a database by its address.
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new"))
    made = beside / path.name
    MlflowClient(f"sqlite:///{made}").search_registered_models(max_results=1)
    made.replace(path)
    shutil.rmtree(beside)


def releases(name: str) -> list[Release]:
    """Return the versions of the registered model `name`, newest first; InputError if there is no such model."""
    mlflow = client()
    _require(mlflow, name)
    found = mlflow.search_model_versions(f"name='{name}'")
    aliases = mlflow.get_registered_model(name).aliases
    return sorted((_release(version, aliases) for version in found), key=lambda release: -release.version)


def find_release(name: str, digest: str) -> Release | None:
    """Return the newest version of `name` whose content has `digest` and is still there, or None."""
    mlflow = client()
    if name not in _names(mlflow):
        return None
    return next((r for r in releases(name) if r.tags.get(TAG_DIGEST) == digest and _is_loadable(r)), None)


def register(name: str, model: Path, *, digest: str, run_id: str, description: str, tags: Mapping[str, str]) -> Release:
    """Register the model directory `model` under `name` as the challenger, unless its content is registered already.

    Args:
        name: registered model, made if missing.
        model: directory that transformers can load.
        digest: of its content; the same digest is never registered twice.
        run_id: the MLflow run that the files are laid into.
        description: Markdown for the dashboard.
        tags: recorded on the version.
    """
    mlflow = client()
    with locked(_lock("aliases")):
        if found := find_release(name, digest):
            return found
        if name not in _names(mlflow):
            mlflow.create_registered_model(
                name, description="Merged by rammerge; champion, challenger and previous are its aliases."
            )
        source = _lay(mlflow.get_run(run_id), mlflow, model)
        version = mlflow.create_model_version(
            name, source=source, run_id=run_id, tags={**tags, TAG_DIGEST: digest}, description=description
        )
        mlflow.set_registered_model_alias(name, CHALLENGER, version.version)
        return _release(mlflow.get_model_version(name, version.version), mlflow.get_registered_model(name).aliases)


def promote(name: str, version: int, *, by_hand: bool = False) -> Promotion:
    """Make `version` the champion, and the champion so far the previous one.

    A version that was rolled back stays down until a person promotes it (`by_hand`), so that a scheduled run of the
    same recipe does not undo the rollback.

    Raises:
        InputError: there is no such model or version, or its files are gone or damaged.
    """
    mlflow = client()
    with locked(_lock("aliases")):
        release = _get(name, version)
        aliases = mlflow.get_registered_model(name).aliases
        champion, previous = _version(aliases, CHAMPION), _version(aliases, PREVIOUS)
        if champion == version:
            return Promotion(
                name=name,
                champion=version,
                previous=previous,
                changed=False,
                sentence=f"{name} version {version} is champion already",
            )
        if release.tags.get(TAG_ROLLED_BACK) and not by_hand:
            sentence = f"{name} version {version} was rolled back; `rammerge promote {name} {version}` brings it back"
            return Promotion(name=name, champion=champion, previous=previous, changed=False, sentence=sentence)
        _require_intact(release)
        if champion is not None:
            mlflow.set_registered_model_alias(name, PREVIOUS, str(champion))
        mlflow.set_registered_model_alias(name, CHAMPION, str(version))
        if _version(aliases, CHALLENGER) == version:
            mlflow.delete_registered_model_alias(name, CHALLENGER)
        if release.tags.get(TAG_ROLLED_BACK):
            mlflow.delete_model_version_tag(name, str(version), TAG_ROLLED_BACK)
        sentence = f"{name} version {version} is champion now" + (f", version {champion} previous" if champion else "")
        return Promotion(name=name, champion=version, previous=champion or previous, changed=True, sentence=sentence)


def rollback(name: str) -> Promotion:
    """Swap champion and previous.

    Raises:
        InputError: there is no such model, nothing to go back to, or its files are gone or damaged.
    """
    mlflow = client()
    with locked(_lock("aliases")):
        _require(mlflow, name)
        aliases = mlflow.get_registered_model(name).aliases
        champion, previous = _version(aliases, CHAMPION), _version(aliases, PREVIOUS)
        if champion is None or previous is None or champion == previous:
            raise InputError(f"{name} has no previous champion to go back to; see `rammerge releases {name}`")
        _require_intact(_get(name, previous))
        mlflow.set_model_version_tag(name, str(champion), TAG_ROLLED_BACK, time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        mlflow.set_registered_model_alias(name, CHAMPION, str(previous))
        mlflow.set_registered_model_alias(name, PREVIOUS, str(champion))
        sentence = f"{name} version {previous} is champion again; version {champion} is previous"
        return Promotion(name=name, champion=previous, previous=champion, changed=True, sentence=sentence)


def local_path(uri: str) -> Path | None:
    """Return the directory of a `file:` URI or a plain path, or None for artifacts that MLflow keeps elsewhere."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parsed.path) if parsed.scheme else uri)


def _lay(run: "Run", mlflow: "MlflowClient", model: Path) -> str:
    """Lay `model` into the run's artifacts in the layout that MLflow loads; return its source for the registry."""
    root = local_path(run.info.artifact_uri)
    if root is None:
        with tempfile.TemporaryDirectory(dir=home()) as scratch:
            _write_mlflow_model(Path(scratch) / ARTIFACT, model, run.info.run_name)
            mlflow.log_artifacts(run.info.run_id, str(Path(scratch) / ARTIFACT), ARTIFACT)
    else:
        staging = root / f".{ARTIFACT}-{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        _write_mlflow_model(staging, model, run.info.run_name)
        shutil.rmtree(root / ARTIFACT, ignore_errors=True)  # of an earlier attempt that was killed before registering
        staging.rename(root / ARTIFACT)
    return f"{run.info.artifact_uri}/{ARTIFACT}"


def _write_mlflow_model(directory: Path, model: Path, name: str) -> None:
    import mlflow.transformers
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    directory.parent.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        # MLflow would copy the weights; it writes the same description for a model directory without them.
        for file in files:
            if file.suffix != ".safetensors":
                beside = Path(scratch) / file.relative_to(model)
                beside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, beside)
        text = Schema([ColSpec(DataType.string)])
        mlflow.transformers.save_model(
            scratch,
            str(directory),
            task="text-generation",
            signature=ModelSignature(inputs=text, outputs=text),
            pip_requirements=["torch", "transformers"],
        )
    for file in files:
        _link(file, directory / "model" / file.relative_to(model))
    description = Model.load(str(directory / "MLmodel"))
    description.flavors["transformers"]["source_model_name"] = name
    description.save(str(directory / "MLmodel"))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, target)


def _is_loadable(release: Release) -> bool:
    root = local_path(release.path)
    return root is None or (root / "MLmodel").is_file()


def _require_intact(release: Release) -> None:
    """Refuse to let a version serve whose files are gone or are not those that were merged (all are read)."""
    who = f"{release.name} version {release.version} cannot serve"
    root = local_path(release.path)
    if not _is_loadable(release):
        raise InputError(f"{who}: {release.path} is gone; run the recipe again")
    if root is not None and (root / "model" / MANIFEST).is_file():
        try:
            verify(root / "model")
        except RammergeError as error:
            raise InputError(f"{who}: {error}") from None


def _names(mlflow: "MlflowClient") -> list[str]:
    return [model.name for model in mlflow.search_registered_models(max_results=1000)]


def _require(mlflow: "MlflowClient", name: str) -> None:
    names = _names(mlflow)
    if name not in names:
        hint = closest(name, names) or (
            "; registered: " + ", ".join(sorted(names)) if names else "; run a recipe first"
        )
        raise InputError(f"no registered model is called '{name}'{hint}")


def _get(name: str, version: int) -> Release:
    found = releases(name)
    for release in found:
        if release.version == version:
            return release
    raise InputError(f"{name} has no version {version}; it has {', '.join(str(r.version) for r in found) or 'none'}")


def _release(version: "ModelVersion", aliases: Mapping[str, Any]) -> Release:
    number = int(version.version)
    source = local_path(str(version.source))
    return Release(
        name=version.name,
        version=number,
        aliases=tuple(sorted(alias for alias, pointed in aliases.items() if int(pointed) == number)),
        path=str(source or version.source),
        run_id=str(version.run_id or ""),
        created=version.creation_timestamp / 1000,
        tags=dict(version.tags),
    )


def _version(aliases: Mapping[str, Any], alias: str) -> int | None:
    return int(aliases[alias]) if alias in aliases else None


def _lock(what: str) -> Path:
    return home() / "mlflow" / f"{what}.lock"

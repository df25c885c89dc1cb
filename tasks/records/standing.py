"""The champion that a run's selected variant has to match: looked up in MLflow, and brought here to be evaluated."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluation.judging.leaderboard import CHAMPION, Champion
from rammerge import store
from rammerge.errors import RammergeError
from tasks.records import registry
from tasks.records.files import local_path
from tasks.records.registry import TAG_DIGEST, Release
from tasks.steps.merging import Merged
from tasks.steps.sources import Model, model_at

_DOWNLOAD_VERSION = 1


class Standing(BaseModel):
    """Who serves when a run looks.

    Attributes:
        champion: how the leaderboard and the gates know the release; None if nothing serves.
        version: MLflow's number of the release.
        model: the release's files, unless one of the run's own variants has the same.
    """

    model_config = ConfigDict(frozen=True)

    champion: Champion | None = None
    version: int | None = None
    model: Model | None = None


def find_standing(name: str, variants: Mapping[str, Merged]) -> Standing:
    """Return who serves as the registered model `name`, which may be one of `variants` already."""
    release = registry.find_champion(name)
    if release is None:
        return Standing()
    shown = f"{name} version {release.version}"
    same = [variant for variant, model in variants.items() if model.content == release.tags.get(TAG_DIGEST)]
    if same:
        return Standing(champion=Champion(name=shown, row=same[0]), version=release.version)
    try:
        model = _bring(release)
    except (RammergeError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        return Standing(champion=Champion(name=shown, problem=reason), version=release.version)
    return Standing(champion=Champion(name=shown, row=CHAMPION), version=release.version, model=model)


def _bring(release: Release) -> Model:
    """Return the model directory of a release.

    Raises:
        RammergeError: its files are gone, or are not those that were registered.
    """
    root = local_path(release.path)
    model = model_at((root if root is not None else _download(release)) / "model")
    if release.tags.get(TAG_DIGEST, model.content) != model.content:
        raise RammergeError("its files are not those that were registered")
    return model


def _download(release: Release) -> Path:
    from mlflow.artifacts import download_artifacts

    def download(directory: Path) -> None:
        download_artifacts(artifact_uri=release.path, dst_path=str(directory))

    inputs = {"source": release.path, "digest": release.tags.get(TAG_DIGEST)}
    entry = store.materialise("release", store.key_of("release", _DOWNLOAD_VERSION, inputs), download)
    return next(file.parent for file in sorted(entry.path.rglob("MLmodel")))

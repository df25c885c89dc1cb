"""Removing registered versions that nothing refers to any more, with their files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from rammerge.system.locks import locked
from tasks.records.connection import client, lock_file
from tasks.records.files import local_path, size_of
from tasks.records.listing import every_model
from tasks.records.registry import TAG_DIGEST, Release, releases
from tasks.records.trouble import explained

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Retired(BaseModel):
    """The versions that were removed, or would be.

    Attributes:
        versions: name and number of each.
        freed: bytes that the disk gets back at once. What the store shares with them is freed with its entry.
    """

    model_config = ConfigDict(frozen=True)

    versions: list[tuple[str, int]]
    freed: int

    @property
    def sentence(self) -> str:
        """What came of it, in a few words."""
        shown = ", ".join(f"{name} {version}" for name, version in self.versions)
        return f"removed the registered versions {shown}" if shown else "removed no registered version"


@explained()
def retire(keep: int, *, dry_run: bool = False) -> Retired:
    """Remove rammerge's registered versions without an alias, but for the newest of each model.

    Args:
        keep: how many of the newest versions of each model stay, in addition to those with an alias.
        dry_run: only say what would be removed.
    """
    mlflow = client(write=not dry_run)
    with locked(lock_file("aliases")):
        chosen = list(_chosen(mlflow, keep))
        freed = sum(size_of(local_path(release.path)) for release in chosen)
        if not dry_run:
            for release in chosen:
                _remove(mlflow, release)
    return Retired(versions=[(release.name, release.version) for release in chosen], freed=freed)


def _chosen(mlflow: "MlflowClient", keep: int) -> Iterator[Release]:
    for model in every_model(mlflow):
        ours = [release for release in releases(model.name) if TAG_DIGEST in release.tags]
        yield from (release for release in ours[keep:] if not release.aliases)


def _remove(mlflow: "MlflowClient", release: Release) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # The files first: a version without them is refused by a promotion, and removed by the next attempt.
    get_artifact_repository(release.path).delete_artifacts()
    mlflow.delete_model_version(release.name, str(release.version))

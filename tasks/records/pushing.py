"""Push a version that serves, or has served, to a repository on a model hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError, RammergeError
from rammerge.system.home import home
from rammerge.system.redaction import redact
from tasks.records.aliases import CHAMPION, PREVIOUS
from tasks.records.connection import client
from tasks.records.files import local_path
from tasks.records.history import read_history
from tasks.records.registry import TAG_PUSH, Release, champion_among, get_release, releases, require_intact
from tasks.records.scratch import scratch
from tasks.records.trouble import explained

TAG_PUSHED = "rammerge.pushed"


class Pushed(BaseModel):
    """A version on a hub, and a sentence about it."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    repo: str
    tag: str
    sentence: str


@explained()
def push(name: str, version: int | None, repo: str | None = None) -> Pushed:
    """Upload the model of `version` to the hub repository `repo`, and tag the commit there with the version.

    The repository is made if it is missing, private. What an interrupted upload has finished is not uploaded again.

    Args:
        name: registered model.
        version: default: the champion.
        repo: `org/name`; default: what the recipe of the version says.

    Raises:
        InputError: the version never served, its files are damaged, or the hub refuses.
        RammergeError: the hub failed; a later call goes on.
    """
    release = _served(name, version)
    repo = repo or release.tags.get(TAG_PUSH)
    if repo is None:
        raise InputError(f"the recipe of {name} version {release.version} names no hub repository; give --to org/name")
    tag = f"v{release.version}"
    shown = f"{name} version {release.version}"
    pushed = Pushed(name=name, version=release.version, repo=repo, tag=tag, sentence=f"{shown} is at {repo}@{tag}")
    if release.tags.get(TAG_PUSHED) == f"{repo}@{tag}":
        return pushed.model_copy(update={"sentence": f"{pushed.sentence} already"})
    require_intact(release)
    with _model(release) as directory, _hub(repo):
        _upload(directory, repo, tag, shown)
    client(write=True).set_model_version_tag(name, str(release.version), TAG_PUSHED, f"{repo}@{tag}")
    return pushed


def _served(name: str, version: int | None) -> Release:
    if version is None:
        champion = champion_among(releases(name))
        if champion is None:
            raise InputError(f"{name} has no champion to push; promote a version first")
        return champion
    release = get_release(name, version)
    served = {CHAMPION, PREVIOUS} & set(release.aliases)
    if not served and all(event.what != "promoted" for event in read_history(release.tags)):
        raise InputError(f"{name} version {version} was never promoted, and only what was is pushed; promote it first")
    return release


@contextmanager
def _model(release: Release) -> Iterator[Path]:
    """Yield the directory of the model, brought here if MLflow keeps it elsewhere."""
    root = local_path(release.path)
    if root is not None:
        yield root / "model"
        return
    from mlflow.artifacts import download_artifacts

    with scratch(home()) as directory:
        yield Path(download_artifacts(artifact_uri=f"{release.path}/model", dst_path=str(directory)))


def _upload(directory: Path, repo: str, tag: str, shown: str) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    hub = HfApi()
    hub.create_repo(repo, private=True, exist_ok=True)
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    # One commit, in which what only an earlier version had goes: `upload_folder` may make several.
    gone = sorted(set(hub.list_repo_files(repo)) - files.keys() - {".gitattributes"})
    changes = [CommitOperationAdd(name, path) for name, path in sorted(files.items())]
    removals = [CommitOperationDelete(name) for name in gone]
    commit = hub.create_commit(repo, [*changes, *removals], commit_message=shown)
    hub.create_tag(repo, tag=tag, revision=commit.oid, tag_message=shown, exist_ok=True)


@contextmanager
def _hub(repo: str) -> Iterator[None]:
    """Say in one sentence what goes wrong with the hub."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (ValueError, OfflineModeIsEnabled) as error:  # a name, or a card, that hubs refuse
        raise InputError(f"{repo} cannot be pushed to: {redact(' '.join(str(error).split()))}") from error
    except LocalTokenNotFoundError as error:
        raise InputError(f"pushing to {repo} needs a token; set HF_TOKEN to one that may write") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise InputError(
                f"the hub does not let this user write to {repo} ({status}); set HF_TOKEN to a token that may"
            ) from error
        raise RammergeError(f"the hub failed while {repo} was pushed ({status}); push again to go on") from error
    except RuntimeError as error:  # an upload, in a thread of its own
        reason = redact(" ".join(str(error.__cause__ or error).split()))[:200]
        raise RammergeError(f"an upload to {repo} broke off ({reason}); push again to go on") from error
    except (httpx.HTTPError, OSError) as error:
        raise RammergeError(f"the hub does not answer ({type(error).__name__}); push {repo} again to go on") from error

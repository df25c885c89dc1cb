"""Downloads from a Hugging Face hub: pinned to a commit, resumed, checked by SHA-256, and only the needed files.

Files are kept in huggingface_hub's own cache, so a file that transformers or vLLM downloaded is not downloaded again.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, get_token, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from rich.filesize import decimal

from rammerge import store
from rammerge.checkpoints.digest import digest_file, sha256_file
from rammerge.checkpoints.repository import Repository, find_place, markers, sidecars, weights
from rammerge.errors import InputError, RammergeError
from rammerge.system.space import require_space

_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Downloaded:
    """A model from a hub, on disk.

    Attributes:
        path: the directory of its weights, in a snapshot of the repository.
        commit: the commit SHA.
        notes: where in the repository the weights are, as sentences for the user, unless they are at the top.
    """

    path: Path
    commit: str
    notes: Sequence[str] = ()


def download(repo: str, revision: str | None, progress: Callable[[str], None]) -> Downloaded:
    """Download the model in `repo` at `revision` (default: its main branch), unless it is in the cache.

    The weights may be a few levels below the top of the repository. Without network, or with HF_HUB_OFFLINE set, a
    snapshot in the cache is used.

    Raises:
        InputError: the model or revision does not exist, is gated or has no weights, or the disk has no room for it.
        RammergeError: the hub cannot be reached, or a download was damaged. A later call resumes.
    """
    what = f"{repo}@{revision}" if revision else repo
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_SECONDS)
    except GatedRepoError as error:
        raise InputError(f"{what} is gated; accept its terms on the hub and log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{repo} is not a directory, and the hub does not have such a model or does not show it; check the "
            "name or log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repo} has no revision {revision} on the hub; give a branch, tag or commit of it") from error
    except HFValidationError as error:
        raise InputError(f"{repo} is neither a directory nor a hub id such as org/name; check the path") from error
    except (httpx.HTTPError, OSError) as error:
        return _cached(what, repo, revision, error)
    try:
        return _download(Repository.of(what, repo, revision, info), progress)
    except (httpx.HTTPError, OSError) as error:
        raise RammergeError(
            f"{what} could not be downloaded completely ({_first_line(error)}); run the same command again to resume"
        ) from error


def _download(repository: Repository, progress: Callable[[str], None]) -> Downloaded:
    what, name, commit, sizes = repository.what, repository.name, repository.commit, repository.sizes
    # Ask for the branch by name once, so that the cache knows its commit when there is no network.
    folder = _snapshot(name, repository.revision, [*sidecars(sizes), *markers(sizes)])
    if folder.name != commit:
        raise RammergeError(f"{what} moved to a different commit during the download; run the same command again")
    place, notes = find_place(what, folder, sizes)
    companions = sidecars(sizes, place)
    if notes:
        _snapshot(name, commit, companions)
    files = weights(what, folder, sizes, place)
    wanted = [*companions, *files]
    _drop_damaged(repository, folder, wanted, progress)
    needed = sum(sizes[file] for file in files if not (folder / file).exists())
    if needed:
        require_space(folder, needed, what=what, where="the hub's cache", fix="make room or set HF_HOME")
        progress(f"downloading {what} at {commit[:12]} ({decimal(needed)})")
    large = [file for file in wanted if repository.sha256[file] and sizes[file] <= constants.MAX_HTTP_DOWNLOAD_SIZE]
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(partial(_download_blob, repository), large))
    return Downloaded(_snapshot(name, commit, wanted) / place, commit, notes)


def _drop_damaged(repository: Repository, folder: Path, wanted: Iterable[str], progress: Callable[[str], None]) -> None:
    """Remove files from the cache whose content is not the hub's, so that they are downloaded again."""
    for name in wanted:
        if (folder / name).exists() and not _intact(folder / name, repository.sha256[name]):
            progress(f"{repository.what}: {name} is damaged in the cache")
            (folder / name).resolve().unlink()
            (folder / name).unlink(missing_ok=True)


def _download_blob(repository: Repository, name: str) -> None:
    """Put the file `name` into the cache's blobs, where huggingface_hub finds it, resuming an unfinished download.

    huggingface_hub itself (1.x) starts each file from the beginning in every process, which is slow for large shards.
    What another machine has downloaded comes from the shared store.
    """
    size, sha256 = repository.sizes[name], str(repository.sha256[name])
    folder = repo_folder_name(repo_id=repository.name, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE) / folder / "blobs" / sha256
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{sha256}.rammerge-partial")
    url = hf_hub_url(repository.name, name, revision=repository.commit)
    if blob.exists():
        return
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if blob.exists():  # another process has finished it
            return
        if store.bring_file(sha256, partial):
            partial.replace(blob)
            return
        for _ in range(2):
            if file.seek(0, os.SEEK_END) > size:
                file.truncate(0)
            begun = file.seek(0, os.SEEK_END)
            http_get(url, file, resume_size=begun, headers=_headers(), expected_size=size)
            file.flush()
            if sha256_file(partial) == sha256:
                partial.replace(blob)
                store.offer_file(sha256, blob)
                return
            file.truncate(0)
    raise RammergeError(f"{repository.name}: {name} does not have the SHA-256 that the hub gives; try again later")


def _headers() -> dict[str, str]:
    token = get_token()  # httpx does not send it to a different host after a redirect
    return {"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})


def _snapshot(repo: str, revision: str | None, names: Iterable[str]) -> Path:
    exact = [re.sub(r"([*?[])", r"[\1]", name) for name in names]  # names, not patterns
    return Path(snapshot_download(repo, revision=revision, allow_patterns=exact, max_workers=4))


def _intact(file: Path, sha256: str | None) -> bool:
    return sha256 is None or digest_file(file).sha256 == sha256


def _cached(what: str, repo: str, revision: str | None, error: Exception) -> Downloaded:
    """Return the snapshot in the cache. Opening it finds out where the weights are and whether files are missing."""
    offline = isinstance(error, OfflineModeIsEnabled)
    try:
        folder = Path(
            snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns=["config.json", "adapter_config.json"]
            )
        )
    except (LocalEntryNotFoundError, OSError, ValueError):
        if offline:
            raise InputError(
                f"{what} is neither a directory nor in the hub's cache, and HF_HUB_OFFLINE is set; check the path "
                "or unset it"
            ) from error
        raise RammergeError(
            f"{what} is not a local directory and could not be downloaded from {constants.ENDPOINT} "
            f"({_first_line(error)}); check the path or the network"
        ) from error
    for file in folder.rglob("*"):
        blob = file.resolve()  # the cache names large files by their SHA-256
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and not _intact(file, blob.name):
            raise RammergeError(f"{what}: {file} is damaged; delete it and {blob}, and download it again")
    return Downloaded(folder, folder.name)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""Recipes from elsewhere, which must be pinned to their content: a commit of a git repository, a digest of a file."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

from rammerge import store
from rammerge.errors import InputError, RammergeError
from rammerge.recipe.reading import MAX_BYTES
from rammerge.system.redaction import redact

# A repository, the 40 hex digits of a commit, and the recipe's path in it.
GIT = r"^git\+(https|ssh|file)://[^@#]*(@[^@#/]+/[^@#]*)?@[0-9a-f]{40}#.+$"
# A file, and the 64 hex digits of its SHA-256.
URL = r"^https?://[^#]+#sha256=[0-9a-f]{64}$"
_KIND, _VERSION = "recipe", 1
_SECONDS = 60.0
_GIT_SECONDS = 600.0
# Nothing of a repository runs, or leads out of it.
_SAFE = ("protocol.allow=never", "core.hooksPath=/dev/null", "core.symlinks=false")
_ALLOWED = ("https", "ssh", "file")


def from_git(reference: str) -> Path:
    """Return the recipe's file in a commit of a git repository. What lies beside it there is beside it here.

    Raises:
        InputError: the reference names no commit, or no file of the repository.
        RammergeError: the repository does not answer.
    """
    if not re.fullmatch(GIT, reference):
        raise InputError(
            f"{redact(reference)} is not pinned; give git+https://HOST/REPOSITORY@COMMIT#path/to/recipe.yaml, with the "
            "40 hex digits of the commit"
        )
    where, _, path = reference.removeprefix("git+").partition("#")
    repository, _, commit = where.rpartition("@")
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InputError(f"{redact(reference)} leads out of the repository; give a path inside of it")
    key = store.key_of(_KIND, _VERSION, {"repository": repository, "commit": commit})
    entry = store.materialise(_KIND, key, lambda out: _check_out(out, repository, commit))
    if not (entry.path / path).is_file():
        raise InputError(f"{redact(repository)} has no file {path} in the commit {commit[:12]}; correct the path")
    return entry.path / path


def download(address: str) -> Path:
    """Return a copy of the recipe at a URL.

    Raises:
        InputError: the address has no digest, or the file is a different one.
        RammergeError: the server does not answer.
    """
    if not re.fullmatch(URL, address):
        raise InputError(
            f"{redact(address)} is not pinned; add #sha256= and the 64 hex digits of the recipe's SHA-256, as "
            "`sha256sum recipe.yaml` prints them"
        )
    url, _, digest = address.partition("#sha256=")
    entry = store.materialise(
        _KIND, store.key_of(_KIND, _VERSION, {"sha256": digest}), lambda out: _write(out / "recipe.yaml", url, digest)
    )
    return entry.path / "recipe.yaml"


def _write(file: Path, url: str, digest: str) -> None:
    import httpx  # which only these runs need

    content = b""
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_SECONDS) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise InputError(f"{redact(url)} is larger than {MAX_BYTES >> 20} MiB, so not a recipe")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = redact(str(error)).partition("\n")[0] or type(error).__name__
        raise RammergeError(f"{redact(url)} cannot be fetched ({reason}); correct the address, or try again") from None
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise InputError(f"{redact(url)} has the SHA-256 {found}, not {digest}; look at it, then correct the digest")
    file.write_bytes(content)


def _check_out(out: Path, repository: str, commit: str) -> None:
    """Write the files of a commit, and nothing of git's own, into a directory."""
    if shutil.which("git") is None:
        raise InputError("a git reference takes git, which is not installed on this worker; install it")
    _git(out, "init", "--quiet")
    try:
        _git(out, "fetch", "--quiet", "--depth=1", repository, commit)
    except RammergeError:  # of a server that hands out branches only, the commit is in one of them
        _git(out, "fetch", "--quiet", repository, "+refs/heads/*:refs/fetched/*", "+refs/tags/*:refs/tags/*")
    _git(out, "checkout", "--quiet", "--detach", commit)
    shutil.rmtree(out / ".git")


def _git(directory: Path, *arguments: str) -> None:
    allowed = (f"protocol.{each}.allow=always" for each in _ALLOWED)
    settings = [part for setting in (*_SAFE, *allowed) for part in ("-c", setting)]
    # It must never ask for a password: nobody would answer.
    ssh = f"{os.environ.get('GIT_SSH_COMMAND', 'ssh')} -o BatchMode=yes"
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": ssh}
    command = ["git", "-C", str(directory), *settings, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_GIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise RammergeError(f"`git {arguments[0]}` took longer than {_GIT_SECONDS:.0f} s; try again") from None
    if done.returncode:
        said = redact(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
        raise RammergeError(f"`git {arguments[0]}` of the recipe's repository failed ({said}); correct the reference")

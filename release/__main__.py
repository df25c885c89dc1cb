"""Build a release: python -m release [DIRECTORY]. Whoever does it on the same commit gets the same bytes.

Written: the wheel and the source distribution, requirements.lock, the bill of materials, and SHA256SUMS.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import rammerge
from rammerge.system.atomic import write_json, write_text
from release.lock import LOCK, ROOT, read_lock
from release.sbom import bill_of_materials


def main(directory: Path) -> None:
    """Build a release of the present commit into a new `directory`; exit where something is there already."""
    if directory.exists():
        sys.exit(f"error: {directory} exists; remove it, so that nothing old is among what is new")
    epoch = committed_at()
    directory.mkdir(parents=True)
    build(directory, epoch)
    digests = {file.name: sha256(file) for file in sorted(directory.iterdir())}
    bill = bill_of_materials(rammerge.__version__, read_lock(), digests, epoch)
    write_json(directory / f"rammerge-{rammerge.__version__}.cdx.json", bill)
    shutil.copyfile(LOCK, directory / LOCK.name)
    sums = [f"{sha256(file)}  {file.name}\n" for file in sorted(directory.iterdir())]
    write_text(directory / "SHA256SUMS", "".join(sums))
    print("".join(sums), end="")


def committed_at() -> int:
    """Return when the present commit was made, in seconds since 1970; exit where files are not as committed."""
    if changed := _git("status", "--porcelain"):
        sys.exit(f"error: the checkout has changes, so nobody could build the same; commit or remove them:\n{changed}")
    return int(_git("log", "-1", "--format=%ct"))


def build(directory: Path, epoch: int, *, checkout: Path = ROOT) -> None:
    """Build the wheel and the source distribution of `checkout`, with the time `epoch` in place of the clock's."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=True)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist"))

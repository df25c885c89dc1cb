"""requirements.lock: the exact version and the SHA-256 of every file of each package that a run needs.

`make lock` writes it with uv, which asks the package index; everything here reads it and asks nobody.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"

_HASH = re.compile(r"--hash=(\S+)")


@dataclass(frozen=True)
class Pin:
    """A line of the lock: a requirement with one exact version, and the hashes of its files, as `sha256:...`."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def version(self) -> str:
        """The version."""
        return next(iter(self.requirement.specifier)).version


def read_lock() -> dict[NormalizedName, Pin]:
    """Return the pins by normalized name."""
    pins = {}
    for line in LOCK.read_text("utf-8").replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.partition("--hash")[0].strip())
            pins[canonicalize_name(requirement.name)] = Pin(requirement, tuple(_HASH.findall(line)))
    return pins


def read_constraints() -> dict[NormalizedName, str]:
    """Return the versions that were tested together by normalized name."""
    lines = (line for line in CONSTRAINTS.read_text("utf-8").splitlines() if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def disagreements(
    wanted: Mapping[str, Requirement], pins: Mapping[NormalizedName, Pin], tested: Mapping[NormalizedName, str]
) -> Iterator[str]:
    """Yield a sentence for everything in which the lock differs from pyproject.toml and constraints.txt.

    Args:
        wanted: the direct dependencies by any name.
        pins: the lock.
        tested: the versions that were tested together.
    """
    for name, requirement in wanted.items():
        pin = pins.get(canonicalize_name(name))
        if pin is None:
            yield f"{name} is in pyproject.toml and not in the lock"
        elif not requirement.specifier.contains(pin.version, prereleases=True):
            yield f"{name} is {pin.version} in the lock, and pyproject.toml wants {requirement.specifier}"
    for key, pin in pins.items():
        if key in tested and tested[key] != pin.version:
            yield f"{key} is {pin.version} in the lock, and {tested[key]} in constraints.txt"
        if not pin.hashes or not all(each.startswith("sha256:") for each in pin.hashes):
            yield f"{key} has no SHA-256 in the lock"

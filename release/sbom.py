"""The bill of materials of a release, as CycloneDX JSON: every package that a run needs, its version and its licence.

It follows from requirements.lock and from what the installed packages say of themselves, so it is the same each time.
"""

import importlib.metadata
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from release.lock import Pin

_OSI = "License :: OSI Approved :: "
_PURPOSE = uuid.UUID("6f1bb2b8-8f0b-5f6e-9d55-2f2d6c1f3a10")


def bill_of_materials(
    version: str, pins: Mapping[NormalizedName, Pin], files: Mapping[str, str], epoch: int
) -> dict[str, Any]:
    """Return the bill of materials, of CycloneDX 1.6.

    Args:
        version: of rammerge.
        pins: the lock.
        files: the SHA-256 of each file of the release by its name.
        epoch: when the release was made, in seconds since 1970.
    """
    components = [_component(name, pins[name]) for name in sorted(pins)]
    described = "\n".join([version, *sorted(files.values()), *(component["bom-ref"] for component in components)])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_PURPOSE, described)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": f"pkg:pypi/rammerge@{version}",
                "name": "rammerge",
                "version": version,
                "purl": f"pkg:pypi/rammerge@{version}",
                "licenses": [{"expression": "Apache-2.0"}],
                "components": [
                    {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
                    for name, digest in sorted(files.items())
                ],
            },
        },
        "components": components,
        "dependencies": [
            {"ref": f"pkg:pypi/rammerge@{version}", "dependsOn": sorted(_references("rammerge", pins))},
            *({"ref": _reference(name, pins), "dependsOn": sorted(_references(name, pins))} for name in sorted(pins)),
        ],
    }


def licence_of(package: str) -> str | None:
    """Return the licence that an installed package names, or None where it is not installed or names none."""
    try:
        about = importlib.metadata.metadata(package).json
    except importlib.metadata.PackageNotFoundError:
        return None
    classified = [line.removeprefix(_OSI) for line in about.get("classifier", []) if line.startswith(_OSI)]
    written = str(about.get("license") or "").strip().splitlines()
    named = about.get("license_expression")
    return str(named) if named else " or ".join(classified) or (written[0] if written else None)


def _component(name: NormalizedName, pin: Pin) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{pin.version}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": pin.version, "purl": purl}
    licence = licence_of(name)
    return component | ({"licenses": [{"license": {"name": licence}}]} if licence else {})


def _references(package: str, pins: Mapping[NormalizedName, Pin]) -> Iterator[str]:
    """Yield what a package needs on this platform, as far as the lock has it."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return
    needed = {canonicalize_name(each.name) for each in map(Requirement, lines) if _applies(each)}
    yield from (_reference(name, pins) for name in needed & pins.keys())


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _reference(name: NormalizedName, pins: Mapping[NormalizedName, Pin]) -> str:
    return f"pkg:pypi/{name}@{pins[name].version}"

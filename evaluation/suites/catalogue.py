"""The suites that come with rammerge, some of which fetch or make their items when they are first used."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from evaluation.sandbox import find_sandbox
from evaluation.suites.fetching import PREPARE, Wheel, prepare, prepared
from evaluation.suites.format import FILE, digest_suite, read_suite_file

_BUNDLED = Path(__file__).resolve().parent / "bundled"
_MAKING = Path(__file__).resolve().parent / "making"


@dataclass(frozen=True)
class Bundled:
    """A suite that comes with rammerge.

    Attributes:
        name: its name.
        title: one line about it.
        licence: of its items.
        wheel: the file of the package index that its items are taken from, if they are.
        sandbox: whether answers are programs.
        path: the directory of the complete suite, once its items are here.
    """

    name: str
    title: str
    licence: str | None
    wheel: Wheel | None
    sandbox: bool
    path: Path

    @property
    def here(self) -> bool:
        """Whether its items are on this machine."""
        return self.path.is_dir()

    def require_sandbox(self) -> None:
        """Raise InputError if answers are programs, and no sandbox works on this machine."""
        if self.sandbox:
            find_sandbox()


def available_suites() -> list[str]:
    """Return the names of the suites that come with rammerge, sorted."""
    return sorted(path.parent.name for path in _BUNDLED.glob(f"*/{FILE}"))


def bundled_suites(among: Collection[str] | None = None) -> list[Bundled]:
    """Return what is known of the suites that come with rammerge, without fetching anything, sorted by name.

    With `among`, only of the suites with these names.
    """
    return [_bundled(_BUNDLED / name) for name in available_suites() if among is None or name in among]


def _bundled(path: Path) -> Bundled:
    content = read_suite_file(path / FILE)
    makes = (path / f"{PREPARE}.py").is_file()
    kept = prepared(path, digest_suite(path, _MAKING.glob("*.py"))) if makes else path
    return Bundled(content.name, content.title, content.licence, content.wheel, content.sandbox, kept)


def ready(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Return the directory of a bundled suite, with its items in it; see `fetching.prepare` for what it raises."""
    found = _bundled(_BUNDLED / name)
    return found.path if found.here else prepare(_BUNDLED / name, found.path, found.wheel, progress)

"""Objects that users write themselves: named in a module that the recipe trusts, or offered by an installed package.

Loading one runs its module's code. So a name in a recipe is loaded only if the recipe lists the module as trusted; an
installed package is trusted because somebody installed it.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rammerge.errors import InputError, closest


def is_reference(name: str) -> bool:
    """Tell `module:name`, which names an object in a module, from a plain name."""
    return ":" in name


def is_address(name: str) -> bool:
    """Tell whether `name` is an address on a network, from which no code is run: a URL, or a git repository's."""
    return "://" in name or name.startswith(("git+", "git@"))


def offered_by(group: str, name: str) -> str:
    """Return the installed package, with its version, that offers the entry point `name` in `group`."""
    points = importlib.metadata.entry_points(group=group, name=name)
    return next((f"{point.dist.name} {point.dist.version}" for point in points if point.dist), "an unknown package")


def load_object(reference: str, *, what: str, trusted: Collection[str], directory: Path | None = None) -> Any:
    """Return the object that `reference` names, importing its module.

    Args:
        reference: `module:name`.
        what: what the object is to be, for messages: "method", "suite", "gate".
        trusted: modules whose code may run; a package's name covers the modules in it.
        directory: where the module may lie besides the import path: the recipe's directory. It stays on the import
            path, because a module may import its neighbors later.

    Raises:
        InputError: the reference is malformed, its module is not trusted, or it cannot be imported, or it has no such
            name.
    """
    module_name, _, name = reference.partition(":")
    where = f"{what} '{reference}'"
    if not all(part.isidentifier() for part in (*module_name.split("."), *name.split("."))):
        raise InputError(f"{where} is not of the form module:name; write it like own_rules:median")
    if not any(f"{module_name}.".startswith(f"{each}.") for each in trusted):
        raise InputError(
            f"{where} runs the code of the module '{module_name}', which is not trusted; if you trust it, say so: "
            f"`trust: [{module_name}]` in a recipe, --trust {module_name} on the command line"
        )
    found: Any = _module(module_name, where, directory)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{where}: '{module_name}' has no '{part}'{closest(part, dir(found))}; correct the name")
        found = getattr(found, part)
    return found


def entry_points(group: str, *, what: str) -> Mapping[str, Callable[[], Any]]:
    """Return name -> a function that loads the object, for what installed packages offer in `group`.

    Raises:
        InputError: two packages offer the same name; or, from a loading function, the package cannot be imported.
    """
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=group):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise InputError(
                f"two packages offer a {what} '{point.name}' ({other.value} and {point.value}); uninstall one of them"
            )
        found[point.name] = point
    return {name: _loader(point, what) for name, point in found.items()}


def _module(name: str, where: str, directory: Path | None) -> ModuleType:
    if directory is not None and str(directory) not in sys.path:
        sys.path.append(str(directory))
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            place = f"put {name.split('.')[0]}.py into {directory}" if directory else "add its directory to PYTHONPATH"
            raise InputError(f"{where}: there is no module '{error.name}'; install it, or {place}") from error
        raise InputError(f"{where}: importing '{name}' failed ({error}); install what is missing") from error
    except Exception as error:
        raise InputError(
            f"{where}: importing '{name}' failed ({type(error).__name__}: {error}); correct the module"
        ) from error
    if directory is not None:
        _refuse_namesake(module, name, where, directory)
    return module


def _refuse_namesake(module: ModuleType, name: str, where: str, directory: Path) -> None:
    """Refuse a module that hides the one of the same name in `directory`, which the user must have meant."""
    beside = directory.joinpath(*name.split("."))
    meant = next((file for file in (beside.with_suffix(".py"), beside / "__init__.py") if file.is_file()), None)
    origin = getattr(module, "__file__", None)
    if meant and not (origin and Path(origin).exists() and meant.samefile(origin)):
        raise InputError(
            f"{where}: {meant} is hidden by '{name}' of {origin or 'Python'}; give the module another name"
        )


def _loader(point: importlib.metadata.EntryPoint, what: str) -> Callable[[], Any]:
    def load() -> Any:
        try:
            return point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            raise InputError(
                f"the {what} '{point.name}' of the package {package} cannot be loaded "
                f"({type(error).__name__}: {error}); update or uninstall the package"
            ) from error

    return load

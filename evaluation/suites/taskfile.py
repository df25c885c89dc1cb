"""lm-eval task files of a suite, read without importing lm-eval so that a suite can be checked at once.

The format is lm-eval's own. One thing is added: data files are relative to the task file, while lm-eval takes them as
relative to the working directory.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluation.suites.functions import FunctionReference
from rammerge.errors import InputError
from rammerge.system.paths import exists, expanded
from rammerge.system.reading import read_text, read_yaml


@dataclass(frozen=True)
class TaskFile:
    """One lm-eval task: its configuration, in which `!function` values are FunctionReferences.

    Attributes:
        name: the task's name.
        path: the file.
        config: the file's content, with what it includes.
        included: the files that it includes, and those that these include.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    included: tuple[Path, ...] = ()

    @property
    def files(self) -> set[Path]:
        """Every file that the task names, in the suite's directory or not: includes, data, modules with functions."""
        data = [file for files in (self.data_files or {}).values() for file in files]
        modules = [reference.files for reference in _functions(self.config)]
        return {self.path, *self.included, *data}.union(*modules)

    @property
    def data_files(self) -> dict[str, tuple[Path, ...]] | None:
        """The absolute paths of the local JSON Lines files by lm-eval split, or None where the data are elsewhere."""
        if self.config.get("dataset_path") != "json":
            return None
        named = (self.config.get("dataset_kwargs") or {}).get("data_files") or {}
        by_split = named if isinstance(named, dict) else {"train": named}
        return {
            split: tuple(self.path.parent / file for file in ([files] if isinstance(files, str) else files))
            for split, files in by_split.items()
        }

    def items(self) -> list[dict[str, Any]]:
        """Return the local items of the split that lm-eval evaluates, in the files' order; [] if they are elsewhere.

        Raises:
            InputError: an item is not a JSON object; names its file and line.
        """
        split = self.config.get("test_split") or self.config.get("validation_split")
        return [item for file in (self.data_files or {}).get(str(split), ()) for item in read_items(file)]

    def prompts(self) -> set[str]:
        """Return what the local items ask: the field that `doc_to_text` names, else the item without its id."""
        field = self.config.get("doc_to_text")
        return {
            str(item[field])
            if isinstance(field, str) and field in item
            else json.dumps({key: value for key, value in item.items() if key != "id"}, sort_keys=True)
            for item in self.items()
        }


def read_task_files(folder: Path) -> dict[str, TaskFile]:
    """Return the lm-eval tasks of the YAML files in `folder` (not below it) by name, sorted by file.

    Raises:
        InputError: a file is not YAML, a data file is missing or malformed, or a name is used twice.
    """
    tasks: dict[str, TaskFile] = {}
    for path in sorted(folder.glob("*.yaml")):
        config, included = _read(path)
        name = config.get("task")
        if not isinstance(name, str):
            continue  # suite.yaml itself, or a file that others include
        if name in tasks:
            raise InputError(f"{path} names the task '{name}', which {tasks[name].path} has already: rename one")
        tasks[name] = TaskFile(name, path, config, included)
        _check_data(tasks[name])
    return tasks


def read_items(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file; raise InputError naming the line that is not one."""
    lines = read_text(file).split("\n")
    items = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number} of the data file {file} is not JSON: {error}; correct it") from None
        if not isinstance(item, dict):
            raise InputError(f"line {number} of the data file {file} must be a JSON object; correct it")
        items.append(item)
    return items


def _functions(value: Any) -> Iterator[FunctionReference]:
    """Yield the FunctionReferences anywhere in a configuration."""
    if isinstance(value, FunctionReference):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _functions(part)


def _check_data(task: TaskFile) -> None:
    _check_file_names(task)
    if task.data_files is None:
        _refuse_local_data(task)
        return
    items = task.items()
    if not items:
        raise InputError(f"{task.path}: its test_split has no items; name it in data_files and put items in the file")
    seen: set[str] = set()
    for item in items:
        identity = str(item.get("id"))
        if "id" in item and identity in seen:
            raise InputError(f"{task.path}: two items have the id '{identity}'; ids must differ")
        seen.add(identity)


def _refuse_local_data(task: TaskFile) -> None:
    """Refuse local data in forms that are not read here: a change of them would not make a different suite."""
    source = str(task.config.get("dataset_path") or "")
    settings = task.config.get("dataset_kwargs") or {}
    named = next((key for key in ("data_files", "data_dir") if key in settings), None)
    if named is not None or exists(expanded(source)) or (task.path.parent / source).is_file():
        shown = f"{named} with dataset_path: {source}" if named else f"the local dataset_path {source}"
        raise InputError(
            f"{task.path}: {shown} cannot be followed, so changes of the data would go unnoticed; write the items as "
            f"JSON Lines and name them with dataset_path: json and dataset_kwargs: {{data_files: ...}}"
        )


def _check_file_names(task: TaskFile) -> None:
    settings = task.config.get("dataset_kwargs") or {}
    named = (settings.get("data_files") or {}) if isinstance(settings, dict) else None
    if not all(map(_are_names, named.values() if isinstance(named, dict) else [named])):
        raise InputError(
            f"{task.path}: dataset_kwargs.data_files must map splits to file names, such as {{test: test.jsonl}}"
        )


def _are_names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _read(path: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Read a task file, with the files it includes underneath its own keys; return it, and those files."""

    class Loader(yaml.SafeLoader):
        pass

    def function(_loader: yaml.SafeLoader, node: yaml.Node) -> FunctionReference:
        module, _, name = str(node.value).rpartition(".")
        return FunctionReference(path.parent, module, name)

    Loader.add_constructor("!function", function)
    content = read_yaml(path, Loader)
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping, as lm-eval's task files are")
    included = content.pop("include", None) or []
    if not _are_names(included):
        raise InputError(f"{path}: include must name a file, or list several")
    merged: dict[str, Any] = {}
    files: tuple[Path, ...] = ()
    for other in [included] if isinstance(included, str) else included:
        if (path.parent / other).resolve() in {each.resolve() for each in (path, *above)}:
            raise InputError(f"{path} includes {other}, which includes it in turn; take one of them out")
        below, further = _read(path.parent / other, (path, *above))
        merged |= below
        files += (path.parent / other, *further)
    return merged | content, files

"""Open a suite directory, check it before any work, and digest it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from evaluation.sandbox import find_sandbox
from evaluation.suites.catalogue import available_suites, ready
from evaluation.suites.environment import World
from evaluation.suites.format import FILE, SPLITS, Sampling, Split, SuiteFile, digest_suite, read_suite_file
from evaluation.suites.functions import FunctionReference
from evaluation.suites.splits import local_clusters, refuse_shared_clusters, refuse_shared_prompts
from evaluation.suites.taskfile import TaskFile, read_task_files
from rammerge.errors import InputError, closest
from rammerge.system.paths import expanded
from rammerge.system.plugins import entry_points, is_address, is_reference, load_object


@dataclass(frozen=True)
class Suite:
    """One domain's evaluation: lm-eval tasks for each split, and the metric that scores an item in [0, 1].

    `task_files` holds the suite's own tasks by name; a name in `tasks` that is not there is one of lm-eval's library.
    Items with the same value of the key `cluster` are related. Without `sampling` decoding is greedy.
    `sandbox` is the name and version of what runs the programs that models write, where the suite asks for programs.
    With an `environment` an answer is a conversation, which the environment scores.
    """

    name: str
    title: str
    domain: str
    metric: str
    tasks: Mapping[Split, tuple[str, ...]]
    apply_chat_template: bool
    cluster: str | None
    sampling: Sampling | None
    sandbox: str | None
    environment: World | None
    path: Path
    digest: str
    task_files: Mapping[str, TaskFile]

    @property
    def uses_library(self) -> bool:
        """Whether a task comes from lm-eval's library, which takes seconds to index and may need the network."""
        return any(task not in self.task_files for tasks in self.tasks.values() for task in tasks)


def load_suite(
    name_or_path: str | Path,
    *,
    relative_to: Path | None = None,
    trusted: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Suite:
    """Return the suite of that name, or the suite in that directory.

    The items of a bundled suite are fetched and prepared if they are not here yet.

    Args:
        name_or_path: a bundled suite; a directory; an entry point of the group `rammerge.suites` of an installed
            package; or `module:name`. An entry point and a module give the path of a suite's directory.
        relative_to: where a relative path begins and a trusted module may lie; by default the working directory.
        trusted: modules whose code may run.
        progress: called with a sentence before something is fetched.

    Raises:
        InputError: there is no such suite, its files are malformed, or its items cannot be fetched.
    """
    name = str(name_or_path)
    if name in available_suites():
        return _open(ready(name, progress))
    path = (relative_to or Path()) / expanded(name)
    if path.is_dir():
        return _open(path.resolve())
    if is_address(name):
        raise InputError(
            f"the suite '{name}' is an address, and a suite is code, which may be different there tomorrow; fetch a "
            "commit that you have read, and give its directory"
        )
    if is_reference(name):
        return _open_named(load_object(name, what="suite", trusted=trusted, directory=relative_to), name)
    return _open_named(_offered(name), name)


def _offered(name: str) -> object:
    """Return what an installed package offers under the entry point `name` of the group `rammerge.suites`."""
    offered = entry_points("rammerge.suites", what="suite")
    if name in offered:
        return offered[name]()
    known = [*available_suites(), *offered]
    raise InputError(
        f"unknown suite '{name}'{closest(name, known)}: name one of {', '.join(known)}, or give the path of a "
        f"directory with a {FILE}"
    )


def _open_named(found: object, name: str) -> Suite:
    if not isinstance(found, str | Path) or not Path(found).is_dir():
        raise InputError(f"the suite '{name}' must be the path of a directory with a {FILE}, not {found!r}; correct it")
    return _open(Path(found).resolve())


def _open(path: Path) -> Suite:
    file = path / FILE
    content = read_suite_file(file)
    both = sorted(set(content.tasks.validation) & set(content.tasks.test))
    if both:
        raise InputError(
            f"{file}: the task '{both[0]}' is in both splits, but nothing may be selected on the items it is reported "
            f"on: give validation and test different tasks"
        )
    task_files = read_task_files(path)
    world = _world(path, content, task_files)
    suite = Suite(
        name=content.name,
        title=content.title,
        domain=content.domain,
        metric=content.metric,
        tasks=MappingProxyType({split: getattr(content.tasks, split) for split in SPLITS}),
        apply_chat_template=content.apply_chat_template,
        cluster=content.cluster,
        sampling=content.sampling,
        sandbox=find_sandbox().label if content.sandbox else None,
        environment=world,
        path=path,
        digest=digest_suite(path, _named(task_files, world)),
        task_files=MappingProxyType(task_files),
    )
    _keep_splits_apart(suite)
    return suite


def _world(path: Path, content: SuiteFile, task_files: Mapping[str, TaskFile]) -> World | None:
    """Return the suite's environment, if it has one; InputError if its tasks cannot be asked in it."""
    if content.environment is None:
        return None
    if not content.apply_chat_template:
        raise InputError(f"{path / FILE}: an environment talks with a model in a chat; set apply_chat_template: true")
    for name in (*content.tasks.validation, *content.tasks.test):
        config = task_files[name].config if name in task_files else {}
        if config.get("output_type") != "generate_until" or "process_results" in config:
            raise InputError(
                f"{path / FILE} has an environment, which scores the answers of the suite's own tasks; give the task "
                f"'{name}' a file with output_type: generate_until and without process_results"
            )
    module, _, name = content.environment.name.rpartition(".")
    return World(FunctionReference(path, module, name), content.environment.turns)


def _named(task_files: Mapping[str, TaskFile], world: World | None) -> set[Path]:
    """Return the files that make the suite what it is, in its directory or not."""
    files = {file for task in task_files.values() for file in task.files}
    return files if world is None else files | world.reference.files


def _keep_splits_apart(suite: Suite) -> None:
    validation, test = (
        [suite.task_files[task] for task in suite.tasks[split] if task in suite.task_files] for split in SPLITS
    )
    refuse_shared_prompts(suite.path, validation, test)
    if (field := suite.cluster) is not None:
        refuse_shared_clusters(suite.path, field, local_clusters(validation, field), local_clusters(test, field))

"""Contract: a suite is checked before any work, a fault is one sentence with the fix, any edit changes the digest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluation.suites import available_suites, load_suite
from rammerge.errors import InputError
from tests.evaluation.made import write_suite


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "made")


@pytest.mark.parametrize("name", ["zoo_code", "zoo_memory", "zoo_tool"])
def test_the_zoo_is_bundled(name: str) -> None:
    suite = load_suite(name)
    assert name in available_suites()
    assert (suite.name, suite.metric, suite.uses_library) == (name, "acc", False)
    sizes = {split: len(suite.task_files[tasks[0]].items()) for split, tasks in suite.tasks.items()}
    assert sizes == {"validation": 200, "test": 300}
    for task in suite.task_files.values():
        limit = task.config["process_results"].load().__globals__["MAX_NEW_TOKENS"]
        assert task.config["generation_kwargs"] == {"until": ["\n"], "max_gen_toks": limit, "do_sample": False}


def test_a_suite_of_ones_own_is_a_directory(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load_suite(suite)
    assert opened.tasks == {"validation": ("made_validation",), "test": ("made_test",)}
    assert load_suite("made", relative_to=suite.parent) == opened
    monkeypatch.chdir(suite.parent)
    assert load_suite("made") == opened


def edit(suite: Path, **changes: object) -> None:
    content = yaml.safe_load((suite / "suite.yaml").read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    (suite / "suite.yaml").write_text(yaml.safe_dump(kept))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize(
    "change",
    [
        lambda suite: append(suite / "test.jsonl", '{"prompt": "new", "target": "x"}\n'),
        lambda suite: append(suite / "scoring.py", "# stricter\n"),
        lambda suite: (suite / "notes.txt").write_text("new"),
        lambda suite: edit(suite, title="Another"),
        lambda suite: (suite / "scoring.py").rename(suite / "score.py"),
    ],
)
def test_any_edit_makes_another_suite(suite: Path, change: Callable[[Path], object]) -> None:
    before = load_suite(suite).digest
    change(suite)
    assert load_suite(suite).digest != before


def _outside_data(suite: Path, outside: Path) -> Path:
    shutil.move(suite / "test.jsonl", outside / "items.jsonl")
    task = suite / "test.yaml"
    task.write_text(task.read_text().replace("test.jsonl", str(outside / "items.jsonl")))
    return outside / "items.jsonl"


def _data_above(suite: Path, outside: Path) -> Path:
    shutil.move(suite / "test.jsonl", outside / "items.jsonl")
    task = suite / "test.yaml"
    task.write_text(task.read_text().replace("test.jsonl", f"../{outside.name}/items.jsonl"))
    return outside / "items.jsonl"


def _hidden_data(suite: Path, _: Path) -> Path:
    (suite / ".items").mkdir()
    shutil.move(suite / "test.jsonl", suite / ".items" / "test.jsonl")
    task = suite / "test.yaml"
    task.write_text(task.read_text().replace("test.jsonl", ".items/test.jsonl"))
    return suite / ".items" / "test.jsonl"


def _linked_data(suite: Path, outside: Path) -> Path:
    (outside / "data").mkdir()
    shutil.move(suite / "test.jsonl", outside / "data" / "test.jsonl")
    (suite / "data").symlink_to(outside / "data")
    task = suite / "test.yaml"
    task.write_text(task.read_text().replace("test.jsonl", "data/test.jsonl"))
    return outside / "data" / "test.jsonl"


def _few_shot_data(suite: Path, outside: Path) -> Path:
    shutil.copy(suite / "test.jsonl", outside / "shots.jsonl")
    task = yaml.load((suite / "test.yaml").read_text().replace("!function", ""), yaml.SafeLoader)
    files = task["dataset_kwargs"]["data_files"] | {"train": str(outside / "shots.jsonl")}
    append(suite / "test.yaml", f"dataset_kwargs: {yaml.safe_dump({'data_files': files}, default_flow_style=True)}")
    return outside / "shots.jsonl"


def _include(suite: Path, outside: Path) -> Path:
    (outside / "more.yaml").write_text("repeats: 1\n")
    append(suite / "test.yaml", f"include: {outside / 'more.yaml'}\n")
    return outside / "more.yaml"


def _include_of_an_include(suite: Path, outside: Path) -> Path:
    (outside / "most.yaml").write_text("repeats: 1\n")
    (outside / "more.yaml").write_text("include: most.yaml\n")
    append(suite / "test.yaml", f"include: {outside / 'more.yaml'}\n")
    return outside / "most.yaml"


def _function_of_an_include(suite: Path, outside: Path) -> Path:
    (outside / "judge.py").write_text("def accept(docs):\n    return docs\n")
    (outside / "more.yaml").write_text("process_docs: !function judge.accept\n")
    append(suite / "test.yaml", f"include: {outside / 'more.yaml'}\n")
    return outside / "judge.py"


def _installed_function(suite: Path, outside: Path) -> Path:
    (outside / "installed_scoring.py").write_text("def accept(docs):\n    return docs\n")
    append(suite / "test.yaml", "process_docs: !function installed_scoring.accept\n")
    return outside / "installed_scoring.py"


WAYS = [
    _outside_data,
    _data_above,
    _hidden_data,
    _linked_data,
    _few_shot_data,
    _include,
    _include_of_an_include,
    _function_of_an_include,
    _installed_function,
]


@pytest.mark.parametrize("name_it", WAYS)
def test_whatever_a_task_names_is_in_the_digest(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name_it: Callable[[Path, Path], Path]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.syspath_prepend(str(outside))
    file = name_it(suite, outside)
    before = load_suite(suite).digest
    assert load_suite(suite).digest == before
    append(file, "\n" if file.suffix == ".jsonl" else "# changed\n")
    assert load_suite(suite).digest != before


@pytest.mark.parametrize(
    "change",
    [
        "dataset_path: csv\n",
        "dataset_path: parquet\ndataset_kwargs: {data_dir: ./data}\n",
        "dataset_path: /tmp\ndataset_kwargs: {}\n",
        "dataset_path: test.jsonl\ndataset_kwargs: {}\n",
    ],
)
def test_local_data_that_cannot_be_followed_are_refused(suite: Path, change: str) -> None:
    kept = [line for line in (suite / "test.yaml").read_text().splitlines() if not line.startswith("dataset_path")]
    (suite / "test.yaml").write_text("\n".join([*kept, change]))
    with pytest.raises(InputError, match="changes of the data would go unnoticed; write the items as JSON Lines"):
        load_suite(suite)


def test_the_digest_is_of_contents_alone(suite: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(suite, tmp_path / "elsewhere" / "made")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "scoring.pyc").write_bytes(b"compiled")
    (copy / ".hidden").write_text("editor's")
    assert load_suite(copy).digest == load_suite(suite).digest


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "misspelt key": (
        lambda suite: edit(suite, titel="x"),
        r"suite.yaml: unknown key 'titel' \(did you mean 'title'\?\)",
    ),
    "missing key": (lambda suite: edit(suite, domain=None), r"suite.yaml: the key 'domain' is missing"),
    "missing split": (lambda suite: edit(suite, tasks={"test": ["made_test"]}), "'tasks.validation' is missing"),
    "wrong type": (
        lambda suite: edit(suite, apply_chat_template="often"),
        "apply_chat_template: should be true or false",
    ),
    "bad name": (lambda suite: edit(suite, name="a/b"), "suite.yaml: name: "),
    "a name with a meaning": (lambda suite: edit(suite, name="average"), "suite cannot be called 'average'"),
    "an include of itself by a longer path": (
        lambda suite: append(suite / "test.yaml", f"include: ../{suite.name}/test.yaml\n"),
        "which includes it in turn",
    ),
    "no mapping": (lambda suite: (suite / "suite.yaml").write_text("- 1\n"), "suite.yaml must be a mapping"),
    "no YAML": (lambda suite: (suite / "suite.yaml").write_text("name: [1\n"), "suite.yaml is not valid YAML"),
    "no suite": (lambda suite: (suite / "suite.yaml").unlink(), "is not a suite: it has no suite.yaml"),
    "one task in both splits": (
        lambda suite: edit(suite, tasks={"test": ["made_test"], "validation": ["made_test"]}),
        "'made_test' is in both splits",
    ),
    "one cluster in both splits": (
        lambda suite: edit(suite, cluster="target"),
        r"1 clusters are in both splits \(one has target: abc\).*move each cluster to one split",
    ),
    "no cluster": (
        lambda suite: edit(suite, cluster="author"),
        "clustered by 'author', but the item .* lacks that key",
    ),
    "a cluster that is no name": (lambda suite: edit(suite, cluster="nested"), r"has \{'only .*give every item text"),
    "one answer sampled": (
        lambda suite: edit(suite, sampling={"repeats": 1, "temperature": 0.7}),
        "sampling.repeats: .*at least 2",
    ),
    "one item in both splits": (
        lambda suite: append(suite / "test.jsonl", (suite / "validation.jsonl").read_text()),
        "5 prompts are in both splits",
    ),
    "data missing": (lambda suite: (suite / "test.jsonl").unlink(), r"test.jsonl does not exist"),
    "data malformed": (lambda suite: append(suite / "test.jsonl", "{\n"), r"line 13 of the data file .*test.jsonl"),
    "data no objects": (lambda suite: append(suite / "test.jsonl", "[]\n"), r"line 13 .* must be a JSON object"),
    "no items": (lambda suite: (suite / "test.jsonl").write_text("\n"), "has no items"),
    "two items of one id": (
        lambda suite: append(suite / "test.jsonl", '{"id": 1, "prompt": "x"}\n{"id": "1", "prompt": "y"}\n'),
        "two items have the id '1'",
    ),
    "two tasks of one name": (
        lambda suite: shutil.copy(suite / "test.yaml", suite / "other.yaml"),
        "names the task 'made_test'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence(suite: Path, fault: str) -> None:
    change, sentence = FAULTS[fault]
    change(suite)
    with pytest.raises(InputError, match=sentence) as refusal:
        load_suite(suite)
    assert "\n" not in str(refusal.value)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown suite 'zoo_tol' \(did you mean 'zoo_tool'\?\)"):
        load_suite("zoo_tol")


def test_scoring_is_imported_as_it_is_on_disk_now(suite: Path) -> None:
    def score() -> object:
        return load_suite(suite).task_files["made_test"].config["process_results"].load()(None, ["e"])

    assert score() == {"acc": 1.0, "share": 1 / 6}
    (suite / "scoring.py").write_text("def process_results(doc, results):\n    return {'acc': 0.5}\n")
    assert score() == {"acc": 0.5}
    (suite / "scoring.py").write_text("def another():\n    pass\n")
    with pytest.raises(InputError, match=r"'scoring.process_results', which cannot be imported"):
        score()

"""Contract: a hub id is pinned to a commit, and only the needed files are downloaded.

Downloads resume, damaged files are never used, and every failure is one sentence. Offline, the cache serves.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.errors import InputError, RammergeError
from tests.fixtures.hub import FakeHub, serve
from tests.fixtures.models import save_model
from tests.fixtures.waiting import PATIENCE_SECONDS

MAIN, OLD = "a" * 40, "b" * 40
REPO = "org/model"
SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = save_model(tmp_path_factory.mktemp("repo") / "model", max_shard_size="8KB")
    for name in (
        "tokenizer.json",
        "chat_template.jinja",
        "LICENSE",
        "additional_chat_templates/tool.jinja",
        "README.md",
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}")
    for name in ("picture.png", "pytorch_model.bin", "onnx/config.json", "tf_model.h5"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("not needed")
    return model


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list of the pauses requested between attempts, in seconds; none of them really lasts."""
    asked, pause = [], time.sleep

    def hurry(seconds: float) -> None:
        asked.append(seconds)
        pause(min(seconds, 0.01))

    monkeypatch.setattr(time, "sleep", hurry)
    return asked


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve(FakeHub({REPO: model}, {"main": MAIN, "v1": OLD})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for patience in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
            monkeypatch.setattr(constants, patience, PATIENCE_SECONDS)
        monkeypatch.setattr("rammerge.checkpoints.hub._TIMEOUT_SECONDS", PATIENCE_SECONDS)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 64)  # the kept part of an interrupted download
        yield hub


def same_tensors(path: Path, model: Path) -> bool:
    return all(
        torch.equal(tensor, load_file(path / file.name)[name])
        for file in open_checkpoint(model).weight_files
        for name, tensor in load_file(file).items()
    )


@pytest.mark.usefixtures("hub")
def test_a_model_is_pinned_to_its_commit(model: Path) -> None:
    said: list[str] = []
    checkpoint = fetch(REPO, progress=said.append)
    assert checkpoint.revision == MAIN
    assert checkpoint.source == REPO
    assert same_tensors(checkpoint.path, model)
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert said == [f"downloading {REPO} at {MAIN[:12]} ({size / 1e3:,.1f} kB)"]
    assert fetch(f"{REPO}@v1").revision == OLD
    assert fetch(REPO, "v1").revision == OLD
    assert fetch(REPO, OLD).revision == OLD
    assert fetch(REPO, OLD).source == REPO


def test_only_what_is_needed_is_downloaded(hub: FakeHub) -> None:
    checkpoint = fetch(REPO)
    found = {str(path.relative_to(checkpoint.path)) for path in checkpoint.path.rglob("*") if path.is_file()}
    shards = {f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}
    assert found == {
        *shards,
        "model.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "LICENSE",
        "README.md",
        "additional_chat_templates/tool.jinja",
    }
    before = len(hub.downloads(SHARD))
    fetch(REPO, progress=lambda line: pytest.fail(line))
    assert len(hub.downloads(SHARD)) == before == 1


def test_pickled_weights_serve_where_there_are_no_others(
    hub: FakeHub, model: Path, tmp_path: Path, rammerge_home: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shutil.copyfile(model / "config.json", old / "config.json")
    torch.save({"a": torch.ones(2)}, old / "pytorch_model.bin")
    hub.repos["org/old"] = old
    checkpoint = fetch("org/old")
    assert checkpoint.path.is_relative_to(rammerge_home)
    assert (checkpoint.source, checkpoint.revision) == ("org/old", MAIN)
    assert list(checkpoint.tensors) == ["a"]


def run_of_steps(model: Path, root: Path, *steps: int) -> Path:
    """Lay out the repository of a run: the model in each step, a critic beside it, and the trainer's own files."""
    for step in steps:
        shutil.copytree(model, root / f"global_step_{step}/actor/huggingface")
        shutil.copytree(model, root / f"global_step_{step}/critic/huggingface")
        (root / f"global_step_{step}/actor/fsdp_config.json").write_text("{}")
        (root / f"global_step_{step}/actor/optim_world_size_1_rank_0.pt").write_text("not needed")
    (root / "README.md").write_text("not needed")
    return root


def test_the_newest_step_below_the_top_is_downloaded(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    hub.repos["org/run"] = run_of_steps(model, tmp_path / "run", 20, 100)
    place = "global_step_100/actor/huggingface"
    checkpoint = fetch("org/run")
    assert checkpoint.path.as_posix().endswith(f"{MAIN}/{place}")
    assert same_tensors(checkpoint.path, model)
    assert (checkpoint.source, checkpoint.revision) == ("org/run", MAIN)
    assert checkpoint.notes == (f"its weights are those in {place}, the newest of 2 steps",)
    assert (checkpoint.path / "chat_template.jinja").is_file()
    assert not [path for _, path, _ in hub.requests if "global_step_20" in path or "critic" in path]
    hub.down = True
    assert fetch("org/run").path == checkpoint.path


def test_a_step_that_the_trainer_calls_finished_goes_before_a_newer_one(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    root = run_of_steps(model, tmp_path / "run", 20, 100)
    (root / "latest_checkpointed_iteration.txt").write_text("20")
    hub.repos["org/run"] = root
    (note,) = fetch("org/run").notes
    assert note.endswith("global_step_20/actor/huggingface, the last of 2 steps that the trainer finished")


def test_weights_at_the_top_go_before_those_below(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    both = shutil.copytree(model, tmp_path / "both")
    shutil.copytree(model, both / "checkpoint-3")
    hub.repos["org/both"] = both
    checkpoint = fetch("org/both")
    assert (checkpoint.path.name, checkpoint.notes) == (MAIN, ())
    assert not hub.downloads("checkpoint-3/config.json")


def test_several_models_and_foreign_forms_are_named(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    for name in ("chat", "math"):
        shutil.copytree(model, tmp_path / "two" / name)
    hub.repos["org/two"] = tmp_path / "two"
    with pytest.raises(InputError, match=r"org/two contains several models; download one of them .*: chat, math"):
        fetch("org/two")
    (tmp_path / "quantized").mkdir()
    (tmp_path / "quantized" / "model-Q4_K_M.gguf").write_text("")
    hub.repos["org/quantized"] = tmp_path / "quantized"
    with pytest.raises(InputError, match="org/quantized contains GGUF, which cannot be read; give the safetensors"):
        fetch("org/quantized")


def test_an_interrupted_download_is_resumed(hub: FakeHub, model: Path) -> None:
    hub.interrupt[SHARD] = 1
    assert same_tensors(fetch(REPO).path, model)
    first, second = hub.downloads(SHARD)
    half = (model / SHARD).stat().st_size // 2
    assert first is None
    assert second is not None
    assert half - 64 <= int(second.removeprefix("bytes=").split("-")[0]) <= half


def test_a_download_that_broke_off_is_resumed_by_the_next_call(hub: FakeHub, model: Path) -> None:
    hub.interrupt[SHARD] = 100
    with pytest.raises(RammergeError, match=r"could not be downloaded completely .* again to resume") as refusal:
        fetch(REPO)
    assert refusal.value.exit_code == 1
    assert "\n" not in str(refusal.value)
    hub.interrupt.clear()
    hub.requests.clear()
    assert same_tensors(fetch(REPO).path, model)
    (resumed,) = hub.downloads(SHARD)
    assert resumed is not None


def test_what_another_machine_downloaded_comes_from_the_shared_store_and_is_checked(
    hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("RAMMERGE_SHARED_STORE", str(tmp_path / "shared"))
    fetch(REPO)
    hub.requests.clear()
    kept = sorted((tmp_path / "shared" / "hub").iterdir())
    kept[0].write_bytes(b"damaged")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache of another machine"))
    assert same_tensors(fetch(REPO).path, model)
    shards = [name for name in (file.name for file in model.glob("*.safetensors")) if hub.downloads(name)]
    assert len(shards) == 1 < len(kept)
    assert [file.read_bytes() == b"damaged" for file in kept] == [False] * len(kept)  # put there anew


def test_a_damaged_file_is_downloaded_again(hub: FakeHub, model: Path) -> None:
    hub.corrupt[SHARD] = 1
    assert same_tensors(fetch(REPO).path, model)
    assert len(hub.downloads(SHARD)) == 2


def test_a_file_that_stays_damaged_is_refused(hub: FakeHub, model: Path) -> None:
    hub.corrupt[SHARD] = 100
    with pytest.raises(RammergeError, match=f"{SHARD} does not have the SHA-256 that the hub gives"):
        fetch(REPO)
    hub.corrupt.clear()
    assert same_tensors(fetch(REPO).path, model)


@pytest.mark.usefixtures("hub")
def test_a_file_that_rots_in_the_cache_is_noticed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rot() -> None:
        content = bytearray((path / SHARD).read_bytes())
        content[-1] ^= 1
        (path / SHARD).resolve().write_bytes(content)

    path = fetch(REPO).path
    rot()
    said: list[str] = []
    assert same_tensors(fetch(REPO, progress=said.append).path, model)
    assert said[0] == f"{REPO}: {SHARD} is damaged in the cache"
    rot()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RammergeError, match=f"{SHARD} is damaged"):
        fetch(REPO)


def test_offline_the_cache_serves(hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(InputError, match="neither a directory nor in the hub's cache, and HF_HUB_OFFLINE is set"):
            fetch(REPO)
    assert hub.requests == []
    fetch(REPO)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in (None, "main", MAIN):
        checkpoint = fetch(REPO, revision)
        assert checkpoint.revision == MAIN
        assert same_tensors(checkpoint.path, model)
    assert hub.requests == []
    with pytest.raises(InputError, match=f"{REPO}@v1 is neither"):
        fetch(REPO, "v1")


def test_a_hub_that_is_down_leaves_the_cache(hub: FakeHub, model: Path) -> None:
    hub.down = True
    with pytest.raises(RammergeError, match="is not a local directory and could not be downloaded") as refusal:
        fetch(REPO)
    assert refusal.value.exit_code == 1
    hub.down = False
    fetch(REPO)
    hub.down = True
    assert same_tensors(fetch(REPO).path, model)


@pytest.mark.usefixtures("hub")
def test_no_network_is_said_in_one_sentence_and_soon(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RammergeError, match=r"could not be downloaded from http://127\.0\.0\.1:9") as refusal:
        fetch(REPO)
    assert "\n" not in str(refusal.value)
    assert sum(pauses) < 5


def test_what_the_hub_does_not_have(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    def refused(source: str, says: str, revision: str | None = None) -> None:
        with pytest.raises(InputError, match=says) as refusal:
            fetch(source, revision)
        assert "\n" not in str(refusal.value)

    refused("org/missing", "org/missing is not a directory, and the hub does not have such a model")
    refused(REPO, "has no revision v9", "v9")
    refused(f"{REPO}@{'c' * 40}", "has no revision c")
    hub.repos["org/gated"] = model
    hub.gated.add("org/gated")
    refused("org/gated", "is gated; accept its terms")
    hub.repos["org/empty"] = tmp_path / "empty"
    hub.repos["org/empty"].mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    refused("org/empty", "neither safetensors nor pytorch_model.bin")
    hub.repos["org/partial"] = shutil.copytree(model, tmp_path / "partial")
    (tmp_path / "partial" / SHARD).unlink()
    refused("org/partial", f"names {SHARD}, which is missing")
    refused(f"{REPO}@v1", "contradict each other", "main")
    refused("--bad/-id", "neither a directory nor a hub id")


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_cache_without_room_is_refused(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(InputError, match=r"the hub's cache has 0 bytes free"):
        fetch(REPO)
    assert hub.downloads(SHARD) == []


def test_a_directory_wins_over_a_hub_id(
    hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / "org" / "model")
    checkpoint = fetch(REPO)
    assert checkpoint.path == tmp_path / "org" / "model"
    assert checkpoint.revision is None
    with pytest.raises(InputError, match="is a local directory, which has no revision v1"):
        fetch(REPO, "v1")
    assert hub.requests == []


@pytest.mark.parametrize(
    "source", ["missing", "./org/model", "/nowhere/at/all", "a/b/c", "", "org/na me", "~/missing/x"]
)
def test_what_is_no_hub_id_never_reaches_the_hub(hub: FakeHub, source: str) -> None:
    with pytest.raises(InputError, match="give a directory or a hub id"):
        fetch(source)
    assert hub.requests == []


def test_names_are_not_patterns(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(model, tmp_path / "odd")
    (odd / "a[1]*.json").write_text("{}")
    (odd / "a1b.txt").write_text("{}")
    hub.repos["org/odd"] = odd
    assert (fetch("org/odd").path / "a[1]*.json").is_file()

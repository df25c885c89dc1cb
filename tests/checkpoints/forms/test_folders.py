"""Contract: weights are found below a trainer's directory, in its newest finished step, and the place is reported.

If more than one model may be meant, they are listed.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import Shard

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.fetch import fetch
from tests.fixtures.adapters import train_adapter
from tests.fixtures.fifos import fifo
from tests.fixtures.models import save_agent, save_model
from tests.fixtures.sharded import save_dtensors
from tests.fixtures.states import State, equal, refused, save_distributed, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def verl(step: Path, state: State) -> None:
    actor = step / "actor"
    save_dtensors(actor, state, {"fsdp": 2}, [Shard(0)])
    torch.save({"state": {}}, actor / "optim_world_size_2_rank_0.pt")
    torch.save({"rng": {}}, actor / "extra_state_world_size_2_rank_0.pt")
    torch.save({"at": 3}, step / "data.pt")
    save_dtensors(step / "critic", {**state, "v_head.weight": torch.ones(2)}, {"fsdp": 2}, [Shard(0)])
    (actor / "huggingface").mkdir()
    (actor / "huggingface" / "tokenizer.json").write_text("{}")


def verl_with_export(step: Path, state: State) -> None:
    verl(step, {name: tensor.float() for name, tensor in state.items()})
    from safetensors.torch import save_file

    save_file(state, step / "actor" / "huggingface" / "model.safetensors", metadata={"format": "pt"})


def megatron_with_export(step: Path, state: State) -> None:
    from safetensors.torch import save_file

    (step / "actor" / "dist_ckpt").mkdir(parents=True)
    for name in ("common.pt", "__0_0.distcp", ".metadata"):
        (step / "actor" / "dist_ckpt" / name).write_bytes(b"of Megatron's own")
    (step / "actor" / "huggingface").mkdir()
    save_file(state, step / "actor" / "huggingface" / "model.safetensors", metadata={"format": "pt"})


def skyrl(step: Path, state: State) -> None:
    save_dtensors(step / "policy", {f"{name}": tensor for name, tensor in state.items()}, {"fsdp": 2}, [Shard(0)])
    torch.save({"at": 3}, step / "data.pt")
    torch.save({"step": 3}, step / "trainer_state.pt")


def nemo_rl(step: Path, state: State) -> None:
    save_distributed(step / "policy" / "weights", {"model": state})
    save_distributed(step / "policy" / "optimizer", {"optim": {f"{name}.exp_avg": t for name, t in state.items()}})
    (step / "policy" / "tokenizer").mkdir()
    (step / "policy" / "tokenizer" / "tokenizer.json").write_text("{}")
    (step / "config.yaml").write_text("policy: {}\n")
    (step / "training_info.json").write_text("{}")


def transformers_trainer(step: Path, state: State) -> None:
    from safetensors.torch import save_file

    step.mkdir(parents=True)
    save_file(state, step / "model.safetensors", metadata={"format": "pt"})
    torch.save({}, step / "training_args.bin")
    (step / "trainer_state.json").write_text("{}")


# name -> how a step is written, what its directory is called, and what lies between the run and the steps
LAYOUTS: dict[str, tuple[Callable[[Path, State], None], str, str]] = {
    "verl": (verl, "global_step_{}", "experiment"),
    "verl with an export": (verl_with_export, "global_step_{}", "experiment"),
    "verl's Megatron with an export": (megatron_with_export, "global_step_{}", "experiment"),
    "SkyRL": (skyrl, "global_step_{}", "."),
    "NeMo-RL": (nemo_rl, "step_{}", "."),
    "transformers' trainer": (transformers_trainer, "checkpoint-{}", "."),
    "torchtune": (transformers_trainer, "epoch_{}", "."),
}


@pytest.fixture
def states(base: Checkpoint, tmp_path: Path) -> list[State]:
    return [weights(save_agent(base.path, tmp_path / f"agent{seed}", seed=seed)) for seed in (1, 2)]


@pytest.mark.parametrize("trainer", LAYOUTS)
def test_the_newest_step_of_a_run(base: Checkpoint, states: list[State], tmp_path: Path, trainer: str) -> None:
    write, name, between = LAYOUTS[trainer]
    run = tmp_path / "run"
    steps = [run / between / name.format(number) for number in (9, 10)]
    write(steps[0], states[0])
    alone = fetch(str(run), base=base)
    assert equal(weights(alone), states[0])
    assert alone.notes[0].startswith(f"its weights are those in {steps[0].relative_to(run).as_posix()}")
    assert alone.notes[0].endswith(", the only weights there")

    write(steps[1], states[1])
    newest = fetch(str(run), base=base)
    assert equal(weights(newest), states[1])
    assert newest.notes[0].endswith(", the newest of 2 steps")
    for source, state in [(steps[0], states[0]), (steps[1], states[1]), (run / between, states[1])]:
        assert equal(weights(fetch(str(source), base=base)), state)


@pytest.mark.parametrize("marker", ["latest_checkpointed_iteration.txt", "latest_ckpt_global_step.txt"])
def test_a_step_that_is_not_finished_is_passed_over(
    base: Checkpoint, states: list[State], tmp_path: Path, marker: str
) -> None:
    for number, state in zip((9, 10), states, strict=True):
        verl(tmp_path / "run" / f"global_step_{number}", state)
    (tmp_path / "run" / marker).write_text("9\n")
    found = fetch(str(tmp_path / "run"), base=base)
    assert equal(weights(found), states[0])
    assert found.notes[0].endswith(", the last of 2 steps that the trainer finished")
    for nonsense in ("", "x", "11"):
        (tmp_path / "run" / marker).write_text(nonsense)
        assert equal(weights(fetch(str(tmp_path / "run"), base=base)), states[1])
    (tmp_path / "run" / marker).unlink()
    with fifo(tmp_path / "run" / marker, "9\n"):  # only files are read
        assert equal(weights(fetch(str(tmp_path / "run"), base=base)), states[1])


def test_a_newest_step_that_is_damaged_is_named(base: Checkpoint, states: list[State], tmp_path: Path) -> None:
    for number, state in zip((9, 10), states, strict=True):
        verl(tmp_path / "run" / f"global_step_{number}", state)
    (tmp_path / "run" / "global_step_10" / "actor" / "model_world_size_2_rank_1.pt").unlink()
    refused(tmp_path / "run", r"global_step_10/actor lacks the files of 1 ranks", base=base)


def test_several_runs_are_listed(base: Checkpoint, states: list[State], tmp_path: Path) -> None:
    for name, state in zip(("grpo", "ppo"), states, strict=True):
        verl(tmp_path / "project" / name / "global_step_3", state)
    refused(
        tmp_path / "project",
        "contains several models; give one of them: grpo/global_step_3, ppo/global_step_3",
        base=base,
    )


def test_models_without_steps_are_listed(agent: Path, base: Checkpoint, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("tool", "code"):
        shutil.copytree(agent, project / name)
    refused(project, "contains several models; give one of them: code, tool", base=base)


def test_adapters_in_named_subfolders(tmp_path: Path) -> None:
    """PEFT saves every adapter that is not called `default` into a directory of its name."""
    base = fetch(str(save_model(tmp_path / "base", "llama", dtype=torch.float32)))
    trained = train_adapter(base.path, tmp_path / "trained", target_modules=["q_proj"])
    run = tmp_path / "run"
    shutil.copytree(trained.path, run / "tool_use")
    (run / "README.md").write_text("")
    found = fetch(str(run), base=base)
    assert equal(weights(found), weights(fetch(str(trained.path), base=base)))
    assert found.notes[0] == "its weights are those in tool_use, the only weights there"
    shutil.copytree(trained.path, run / "reference")
    assert fetch(str(run), base=base).path == found.path
    shutil.copytree(trained.path, run / "coding")
    refused(run, "contains several models; give one of them: coding, tool_use", base=base)


def test_what_lies_aside_is_not_the_agent(base: Checkpoint, states: list[State], tmp_path: Path) -> None:
    run = tmp_path / "run"
    transformers_trainer(run / "policy", states[0])
    for name in ("critic", "ref", "reference", "reward_model", "value_model", ".hidden", "optimizer_0", "rm"):
        transformers_trainer(run / name, states[1])
    assert equal(weights(fetch(str(run), base=base)), states[0])


def test_tokenizers_of_a_run_come_with_the_agent(base: Checkpoint, states: list[State], tmp_path: Path) -> None:
    nemo_rl(tmp_path / "run" / "step_3", states[0])
    (tmp_path / "run" / "step_3" / "policy" / "tokenizer" / "tokenizer.json").write_text(json.dumps({"own": 1}))
    found = fetch(str(tmp_path / "run"), base=base)
    assert json.loads((found.path / "tokenizer.json").read_text()) == {"own": 1}


def test_links_are_not_followed_round(base: Checkpoint, states: list[State], tmp_path: Path) -> None:
    run = tmp_path / "run"
    transformers_trainer(run / "checkpoint-3", states[0])
    (run / "latest").symlink_to(run / "checkpoint-3")
    (run / "checkpoint-3" / "up").symlink_to(run)
    assert equal(weights(fetch(str(run), base=base)), states[0])


def test_a_source_is_searched_to_some_depth_only(base: Checkpoint, states: list[State], tmp_path: Path) -> None:
    transformers_trainer(tmp_path / "a" / "b" / "c" / "d" / "e" / "f", states[0])
    refused(tmp_path / "a", "no weights in a known form", base=base)
    assert equal(weights(fetch(str(tmp_path / "a" / "b"), base=base)), states[0])

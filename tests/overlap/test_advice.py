"""Contract: agents that moved the same way, or never touched what others changed much, are named before a merge."""

from pathlib import Path

import torch

from tests.engine.models import measure_overlap, write_family

SHAPES = {"embed.weight": (40, 25), "layer.weight": (30, 30), "norm.weight": (30,)}


def warnings(root: Path, *agents: dict[str, float], same: float | None = None) -> list[str]:
    """What is said of agents that moved each tensor by random steps of that size; one more if `same` is its cosine."""
    generator = torch.Generator().manual_seed(0)

    def steps(scale: float, shape: tuple[int, ...]) -> torch.Tensor:
        # A tenth of the elements: a denser agent is warned about for that.
        return (torch.rand(shape, generator=generator) < 0.1) * torch.randn(shape, generator=generator) * scale

    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    moved = [{name: base[name] + steps(agent[name], shape) for name, shape in SHAPES.items()} for agent in agents]
    if same is not None:
        turned = (1 / same**2 - 1) ** 0.5
        moved.append({name: moved[0][name] + (moved[0][name] - base[name]).roll(1) * turned for name in SHAPES})
    said = measure_overlap(*write_family(root, base, moved)).warnings()
    return [warning for warning in said if "moved the same way" in warning or "changed nothing" in warning]


EVERYWHERE = dict.fromkeys(SHAPES, 0.1)


def test_agents_that_moved_the_same_way(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, EVERYWHERE, EVERYWHERE, same=0.995)
    assert warning.startswith("agents 'agent0' and 'agent2' moved the same way (cosine 0.99")
    assert "make them a group" in warning


def test_agents_of_their_own(tmp_path: Path) -> None:
    assert warnings(tmp_path, EVERYWHERE, EVERYWHERE, same=0.9) == []


def test_a_tensor_that_training_froze(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, EVERYWHERE, {**EVERYWHERE, "embed.weight": 0.0})
    assert warning.startswith("agent 'agent1' changed nothing in 1 tensor with ")
    assert "% of all changes (embed.weight)" in warning


def test_a_small_tensor_that_moved_little_is_no_news(tmp_path: Path) -> None:
    others = {**EVERYWHERE, "embed.weight": 0.2}
    assert warnings(tmp_path, others, {**others, "norm.weight": 0.0}) == []

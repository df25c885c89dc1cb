"""Contract: a weight multiplies its agent's task vector before the method, in statistics as in the merge.

So a merge with weights is that of agents that moved by so much less or more. Where that has no meaning it is refused.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import METHODS, resolve
from rammerge.system.toolchain import compiler
from tests.engine.models import Models, merge, read, sparse_family, weight_bytes, write_family

SHAPES = {"embed.weight": (64, 32), "layer.weight": (32, 32), "norm.weight": (32,)}
WEIGHTS = {"agent0": 0.5, "agent2": 2.0}
WEIGHED = sorted(name for name, method in METHODS.items() if not (method.refuses_weights or method.needs_prompts))


def family(root: Path) -> Models:
    return write_family(root, *sparse_family(SHAPES, [0.6, 0.8, 0.5], dtype=torch.float32))


@pytest.mark.parametrize("method", WEIGHED)
def test_a_weight_scales_the_task_vector(method: str, tmp_path: Path) -> None:
    # With a base of zeros and factors that are powers of two, scaled agents have exactly the weighted task vectors.
    _, agents = sparse_family(SHAPES, [0.6, 0.8, 0.5], dtype=torch.float32)
    base = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    scaled = [
        {name: values * WEIGHTS.get(f"agent{index}", 1.0) for name, values in agent.items()}
        for index, agent in enumerate(agents)
    ]
    params = {"epsilon": 0.0} if "epsilon" in METHODS[method].params.model_fields else {}
    weighted = resolve(method, None, params, weights=WEIGHTS)
    expected = resolve("average") if method == "linear" else resolve(method, None, params)
    found = read(merge(*write_family(tmp_path / "one", base, agents), weighted, tmp_path / "found").path)
    wanted = read(merge(*write_family(tmp_path / "two", base, scaled), expected, tmp_path / "wanted").path)
    for name, values in wanted.items():
        if method == "linear":
            torch.testing.assert_close(found[name], values * 3 / 3.5, rtol=1e-6, atol=1e-9)
        else:
            assert torch.equal(found[name], values)


def test_weights_are_recorded_and_belong_to_the_identity(tmp_path: Path) -> None:
    models = family(tmp_path)
    report = merge(*models, resolve("ties", weights=WEIGHTS), tmp_path / "out")
    assert report.manifest.settings.weights == WEIGHTS
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Weights of task vectors: agent0 0.5, agent2 2; the others 1." in card
    plain = merge(*models, resolve("ties", weights={"agent0": 1.0}), tmp_path / "plain").manifest.settings
    assert plain.weights is None
    assert plain == merge(*models, resolve("ties"), tmp_path / "none").manifest.settings


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
def test_compiled_and_eager(tmp_path: Path) -> None:
    models, method = family(tmp_path), resolve("ties", None, {"density": 0.4}, weights=WEIGHTS)
    eager = merge(*models, method, tmp_path / "eager", MergeOptions("bfloat16", compile="never"))
    fused = merge(*models, method, tmp_path / "fused", MergeOptions("bfloat16", compile="always"))
    assert weight_bytes(fused.path) == weight_bytes(eager.path)
    assert not [warning for warning in fused.warnings if "eagerly" in warning]


@pytest.mark.parametrize(
    ("method", "weights", "message"),
    [
        ("average", {"agent0": 0.5}, r"method 'average' takes no weights: .*; use linear"),
        ("ties", {"agent0": 0.0}, r"the weight of agent 'agent0' is 0.0; give a number above 0"),
        ("ties", {"agent0": "half"}, r"the weight of agent 'agent0' is 'half'; give a number above 0"),
        ("ties", {"agent0": float("nan")}, r"the weight of agent 'agent0' is nan"),
        ("ties", {"agnet0": 0.5}, r"the weight of 'agnet0' belongs to no agent \(did you mean 'agent0'\?\)"),
        ("ties", {"agnet1": 1.0, "agent0": 2}, r"of 'agnet1' belongs to no agent \(did you mean 'agent1'\?\)"),
    ],
)
def test_what_cannot_be_weighted_is_refused(method: str, weights: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(method, weights=weights).bind(["agent0", "agent1"])

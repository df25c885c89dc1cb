"""mergekit's side of a comparison: which of its methods does what ours does, and the command that merges by it.

It runs from an environment of its own: `python -m venv X && X/bin/pip install mergekit`, then X/bin/python.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Rival:
    """A method of mergekit.

    Attributes:
        name: its name there.
        params: its parameters.
        of_models: its parameters for each model.
        base: whether it takes the base.
    """

    name: str
    params: Mapping[str, float] = field(default_factory=dict)
    of_models: Mapping[str, float] = field(default_factory=dict)
    base: bool = True


_EQUAL = {"weight": 1.0}

# By our method, with the defaults of ours as far as it has them.
RIVALS: Mapping[str, Rival] = {
    "ram": Rival("ram", {"epsilon": 1e-5}),
    "ram_plus": Rival("ramplus_tl", {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}),
    "linear": Rival("linear", of_models=_EQUAL, base=False),
    "task_arithmetic": Rival("task_arithmetic", of_models=_EQUAL),
    "ties": Rival("ties", {"density": 0.2}, _EQUAL),
    "dare": Rival("dare_linear", {"density": 0.1}, _EQUAL),
    "dare_ties": Rival("dare_ties", {"density": 0.1}, _EQUAL),
    "breadcrumbs": Rival("breadcrumbs", {"density": 0.85, "gamma": 0.01}, _EQUAL),
    "della": Rival("della", {"density": 0.7, "epsilon": 0.07}, _EQUAL),
    "sce": Rival("sce", {"select_topk": 1.0}),
    "multi_slerp": Rival("multislerp", of_models=_EQUAL),
    "karcher": Rival("karcher", base=False),
    "model_stock": Rival("model_stock"),
}


def command(python: Path, rival: Rival, base: Path, agents: Sequence[Path], out: Path, config: Path) -> list[str]:
    """Write `config`, and return the command that merges as it says into `out`, in bfloat16.

    Args:
        python: the interpreter of mergekit's environment.
        rival: the method.
        base: the base.
        agents: the models.
        out: the directory to make.
        config: the file to write.
    """
    models = [{"model": str(agent), "parameters": dict(rival.of_models)} for agent in agents]
    content = {"models": models, "merge_method": rival.name, "parameters": dict(rival.params)}
    if rival.base:
        content["base_model"] = str(base)
    # JSON is YAML. Without out_dtype, ramplus_tl would write float32; the other methods keep the input's dtype.
    config.write_text(json.dumps({**content, "out_dtype": "bfloat16"}))
    program = python.parent / "mergekit-yaml"
    return [str(program), str(config), str(out), "--no-copy-tokenizer", "--lazy-unpickle"]

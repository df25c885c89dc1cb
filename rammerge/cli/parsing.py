"""Converting the words of a command line: names of models, parameters, sizes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.errors import InputError
from rammerge.system.paths import exists, expanded

if TYPE_CHECKING:
    from rammerge.rules import ResolvedMethod

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)


def name_agents(agents: Sequence[str]) -> dict[str, str]:
    """Return name -> source, in the order given, of agents written as `[NAME=]SOURCE`.

    An agent without a name is called after the last part of its source, with a number if that name is taken.

    Raises:
        InputError: the same name was given twice, or a group of checkpoints has none.
    """
    named: dict[str, str] = {}
    for text in agents:
        match = None if exists(Path(text)) else _NAMED.fullmatch(text)
        if match and match[1] in {*named, "base"}:
            raise InputError(f"two models are named '{match[1]}'; give the agent a different NAME=")
        if not match and "," in text and not exists(Path(text)):
            raise InputError(f"the checkpoints {text} are a group, which needs a name; write NAME={text}")
        stem = match[1] if match else expanded(text.split("@")[0]).absolute().name or "agent"
        taken = {*named, "base"}
        name = next(
            n for number in range(1, len(agents) + 3) if (n := stem if number == 1 else f"{stem}-{number}") not in taken
        )
        named[name] = match[2] if match else text
    return named


def split_groups(agents: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the checkpoints by name, and agent -> names of its members, of agents written as `NAME=SOURCE,SOURCE`.

    Raises:
        InputError: a member is missing, or the name of one is another agent's.
    """
    several = {name: text.split(",") for name, text in agents.items() if "," in text and not exists(Path(text))}
    if not several:
        return dict(agents), {}
    for name, sources in several.items():
        if not all(sources):
            raise InputError(f"--agent '{name}={agents[name]}' names an empty member; write {name}=SOURCE,SOURCE")
    from rammerge.recipe import name_members  # imports much that few need

    return name_members({**agents, **several})


def parse_method(
    method: str,
    preset: str | None,
    *,
    settings: Sequence[str] | None,
    weights: Sequence[str] | None,
    tensors: Sequence[str] | None,
    then: Sequence[str] | None,
    prompts: Path | None,
    trusted: Sequence[str] | None,
) -> "ResolvedMethod":
    """Return the method that the words of the options stand for, with every parameter settled.

    Raises:
        InputError: an option that cannot be read, or that the method does not have.
    """
    from rammerge.activations.prompts import Prompts
    from rammerge.rules import resolve

    return resolve(
        method,
        preset,
        parse_settings(settings or ()),
        weights=parse_weights(weights or ()),
        tensors=parse_tensor_rules(tensors or ()),
        then=parse_steps(then or ()),
        prompts=None if prompts is None else Prompts.read(prompts),
        trusted=trusted or (),
        directory=Path.cwd(),
    )


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Return the parameters of `--set KEY=VALUE` options; values are read as YAML scalars.

    Raises:
        InputError: not of that form, or a key given twice.
    """
    import yaml

    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals or not value:
            raise InputError(f"{option} '{setting}' is not of the form KEY=VALUE, such as r=0.1")
        if key in parsed:
            raise InputError(f"{option} {key} is given twice; give it once")
        try:
            parsed[key] = _number(value, yaml.safe_load(value))
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
            raise InputError(f"{option} '{setting}' has no readable value; write it like r=0.1") from error
    return parsed


def parse_weights(weights: Sequence[str]) -> dict[str, float]:
    """Return the factors of agents' task vectors of `--weight AGENT=NUMBER` options.

    Raises:
        InputError: not of that form, or an agent given twice.
    """
    parsed: dict[str, float] = {}
    for text in weights:
        name, _, value = text.partition("=")
        try:
            weight = float(value)
        except ValueError:
            raise InputError(f"--weight '{text}' is not of the form AGENT=NUMBER, such as tool=0.5") from None
        if name in parsed:
            raise InputError(f"--weight {name} is given twice; give it once")
        parsed[name] = weight
    return parsed


def parse_tensor_rules(rules: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rules of `--tensors PATTERN=MODEL` and `--tensors PATTERN=KEY:VALUE[,KEY:VALUE]` options.

    Raises:
        InputError: not of these forms.
    """
    parsed: list[dict[str, Any]] = []
    for text in rules:
        pattern, _, what = text.rpartition("=")
        if not pattern or not what:
            raise InputError(f"--tensors '{text}' is not of the form PATTERN=MODEL, such as '*embed_tokens*=base'")
        params = parse_settings([setting.replace(":", "=", 1) for setting in what.split(",")]) if ":" in what else {}
        parsed.append({"match": pattern, "params": params} if params else {"match": pattern, "use": what})
    return parsed


def parse_steps(steps: Sequence[str]) -> list[dict[str, Any]]:
    """Return the steps of `--then STEP` and `--then STEP:KEY=VALUE[,KEY=VALUE]` options.

    Raises:
        InputError: not of these forms.
    """
    parsed: list[dict[str, Any]] = []
    for text in steps:
        name, _, settings = text.partition(":")
        parsed.append({name: parse_settings(settings.split(","), "--then") if settings else {}})
    return parsed


def _number(text: str, value: Any) -> Any:
    # YAML 1.1 reads 1e-5, without a point, as a string.
    if isinstance(value, str):
        try:
            return float(text)
        except ValueError:
            return value
    return value

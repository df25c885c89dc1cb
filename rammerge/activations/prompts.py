"""Prompts: unlabeled texts of the agents' tasks, as users write them. Methods that need data see a model on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rammerge.errors import InputError, closest
from rammerge.system.paths import expanded
from rammerge.system.reading import open_regular, read_exactly

_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        content: text as it is, or messages of a chat (`role` and `content`) for the model's chat template.
        agent: the agent to whose task it belongs; None for all.
    """

    content: str | Sequence[Mapping[str, Any]]
    agent: str | None = None


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        items: the prompts, in order.
    """

    path: Path
    sha256: str
    items: tuple[Prompt, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of prompts: text with one on each line, or `.jsonl` with an object on each line.

        An object has a `prompt`, text or chat messages, and may name an `agent`; other keys are not read.

        Raises:
            InputError: the file is missing, too large or empty, or a line is not a prompt.
        """
        path = expanded(path)
        with open_regular(path) as (descriptor, size):
            if size > _MAX_BYTES:
                raise InputError(f"{path} is too large for prompts ({size:,} bytes); a few dozen prompts are enough")
            content = bytes(read_exactly(descriptor, size, 0, path))
        items = tuple(_parsed(path, content))
        if not items:
            raise InputError(f"{path} has no prompts; write one on each line")
        return cls(path, hashlib.sha256(content).hexdigest(), items)

    def check_agents(self, agents: Collection[str]) -> None:
        """Check that prompts name only existing agents, and that each agent has prompts.

        Raises:
            InputError: they do not.
        """
        named = {prompt.agent for prompt in self.items if prompt.agent is not None}
        for name in sorted(named - set(agents)):
            raise InputError(f"{self.path} has a prompt of '{name}', which is not an agent{closest(name, agents)}")
        common = any(prompt.agent is None for prompt in self.items)
        for name in agents:
            if not common and name not in named:
                raise InputError(f"{self.path} has no prompt for agent '{name}'; add some, or leave `agent` out")

    def to_json(self) -> dict[str, Any]:
        """Return what identifies the prompts, as plain JSON."""
        return {"sha256": self.sha256, "count": len(self.items)}


def _parsed(path: Path, content: bytes) -> Iterator[Prompt]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from None
    is_json = path.suffix.lower() in (".jsonl", ".json")
    # JSON allows in a string what `splitlines` takes for the end of a line, such as U+2028.
    lines = text.split("\n") if is_json else text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse_object(f"{path}:{number}", line) if is_json else Prompt(line)


def _parse_object(where: str, line: str) -> Prompt:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); write one object on each line") from None
    read: dict[str, Any] = value if isinstance(value, dict) else {}
    content, agent = read.get("prompt", ""), read.get("agent")
    if not _is_content(content):
        raise InputError(f'{where} has no prompt; write {{"prompt": "..."}}, or chat messages in place of the text')
    if agent is not None and not isinstance(agent, str):
        raise InputError(f"{where} names no agent with {agent!r}; give an agent's name")
    return Prompt(content, agent)


def _is_content(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return isinstance(content, list) and bool(content) and all(isinstance(each, dict) for each in content)

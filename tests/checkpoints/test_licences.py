"""Contract: a merge says under which licences its sources are, and what is known to be in the way of giving it away."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import rammerge
from rammerge.checkpoints.licences import about_licences, find_licence
from tests.fixtures.fifos import fifo
from tests.fixtures.models import save_agent

# A list of ten to the ninth words, as YAML with aliases.
ENDLESS = "a0: &a0 [x]\n" + "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]\n" for at in range(1, 9))


@pytest.mark.parametrize(
    ("card", "text", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model\n", "MIT License", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", None, "qwen-research"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None, "mit"),
        ("---\nlicense: {broken\n---\n", "\n   Apache License\n   Version 2.0, January 2004", "apache-2.0"),
        ("---\nlicense: mit\ndate: 2024-02-30\n---\n", None, None),
        (f"---\nlicense: {'[' * 5000}\n---\n", None, None),
        ("---\r\nlicense: mit\r\n---\r\n", None, "mit"),
        (None, "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "llama"),
        (None, "Permission is hereby granted, free of charge, to any person", "mit"),
        ("# No front matter\nlicense: mit\n", "All rights reserved.", None),
        (None, None, None),
    ],
)
def test_a_licence_is_what_the_card_says_or_else_the_file(
    card: str | None, text: str | None, licence: str | None, tmp_path: Path
) -> None:
    for name, content in (("README.md", card), ("LICENSE", text)):
        if content is not None:
            (tmp_path / name).write_text(content)
    assert find_licence(tmp_path) == licence


@pytest.mark.parametrize("card", [f"---{chr(10) * 500_000}", f"---\n{ENDLESS}license: [*a8]\n---\n"])
def test_a_card_that_was_made_to_take_forever_says_nothing(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    assert find_licence(tmp_path) is None


def test_only_files_are_read(tmp_path: Path) -> None:
    with fifo(tmp_path / "README.md", "---\nlicense: mit\n---\n"):
        assert find_licence(tmp_path) is None


@pytest.mark.parametrize(
    ("licences", "words"),
    [
        ({"base": "apache-2.0", "tool": "mit", "code": None}, []),
        ({"base": "gpl-3.0", "tool": "apache-2.0"}, []),
        ({"base": "llama3.1", "tool": "llama3.2"}, []),
        ({"base": "cc-by-nc-4.0", "tool": "cc-by-nc-4.0"}, []),
        ({"base": "gpl-3.0", "tool": "gemma"}, ["base (gpl-3.0) and of tool (gemma) contradict each other"]),
        ({"base": "mit", "tool": "cc-by-nd-4.0"}, ["tool (cc-by-nd-4.0) does not allow"]),
        ({"base": "mit", "tool": "cc-by-nc-4.0"}, ["tool (cc-by-nc-4.0) allows no commercial use"]),
        ({"base": "gpl-3.0", "tool": "agpl-3.0"}, ["each want the merge under their own terms"]),
        ({"base": "llama3.1", "tool": "gemma"}, ["has to keep the terms of each of base (llama3.1), tool (gemma)"]),
    ],
)
def test_known_contradictions_are_named(licences: dict[str, str | None], words: list[str]) -> None:
    told = about_licences(licences)
    assert len(told) == len(words) and all(word in sentence for word, sentence in zip(words, told, strict=True))


def test_a_merge_warns_and_its_card_has_the_lineage(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    agent = save_agent(tiny_model("llama"), tmp_path / "agent", density=0.3, seed=1)
    (agent / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    other = save_agent(tiny_model("llama"), tmp_path / "other", density=0.3, seed=2)
    (other / "README.md").write_text("---\nlicense: mit\n---\n")
    merged = rammerge.merge(tiny_model("llama"), {"a": agent, "b": other}, method="ram", out=tmp_path / "out")
    assert any("a (cc-by-nc-4.0) allows no commercial use" in warning for warning in merged.warnings)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| cc-by-nc-4.0 |" in card and "> the licence of a (cc-by-nc-4.0) allows no commercial use" in card
    assert "The terms of base are not known" in card
    assert "license" not in yaml.safe_load(card.split("---")[1])

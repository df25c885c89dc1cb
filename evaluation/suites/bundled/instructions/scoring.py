"""The rules that answers are to follow: how each is put into words, and the check whether an answer follows it.

An answer's score is the share of its rules that it follows; `all` says whether it follows every one.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A rule in words, and its check of an answer without blanks around it; both get the rule's values."""

    words: str
    follows: Callable[..., bool]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score one answer. An empty one follows no rule."""
    answer = results[0].strip()
    followed = [bool(answer) and RULES[rule["rule"]].follows(answer, **rule["values"]) for rule in doc["rules"]]
    return {"acc": sum(followed) / len(followed), "all": float(all(followed))}


def _words(answer: str) -> list[str]:
    return re.findall(r"\w+(?:['\u2019-]\w+)*", answer)


def _occurrences(answer: str, word: str) -> int:
    return [each.lower() for each in _words(answer)].count(word.lower())


def _lines(answer: str, pattern: str) -> int:
    return len(re.findall(pattern, answer, flags=re.MULTILINE))


def _sentences(answer: str) -> int:
    return len(re.findall(r"[^.!?]*\w[^.!?]*(?:[.!?]+|\Z)", answer))


def _paragraphs(answer: str) -> int:
    return len([part for part in re.split(r"\n\s*\n", answer) if part.strip()])


def _cased(answer: str, case: Callable[[str], str]) -> bool:
    return answer == case(answer) and any(letter.isalpha() for letter in answer)


def _json_keys(answer: str, keys: Sequence[str]) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", answer, flags=re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


RULES: dict[str, Rule] = {
    "at_least": Rule("Use at least {count} words.", lambda answer, count: len(_words(answer)) >= count),
    "at_most": Rule("Use at most {count} words.", lambda answer, count: len(_words(answer)) <= count),
    "sentences": Rule("Write exactly {count} sentences.", lambda answer, count: _sentences(answer) == count),
    "paragraphs": Rule(
        "Write exactly {count} paragraphs, with an empty line between two.",
        lambda answer, count: _paragraphs(answer) == count,
    ),
    "bullets": Rule(
        "Give exactly {count} bullet points, each on a line that starts with '- '.",
        lambda answer, count: _lines(answer, r"^\s*- \S") == count,
    ),
    "numbered": Rule(
        "Give a numbered list of exactly {count} entries, such as '1. ...'.",
        lambda answer, count: re.findall(r"^\s*(\d+)\. \S", answer, re.MULTILINE) == [str(n + 1) for n in range(count)],
    ),
    "json": Rule(
        "Answer with one JSON object that has exactly the keys {keys}, and nothing else.",
        lambda answer, keys: _json_keys(answer, keys),
    ),
    "lower": Rule("Use lowercase letters only.", lambda answer: _cased(answer, str.lower)),
    "upper": Rule("Use capital letters only.", lambda answer: _cased(answer, str.upper)),
    "no_comma": Rule("Use no comma.", lambda answer: "," not in answer),
    "word": Rule(
        "Use the word '{word}' at least {count} times.", lambda answer, word, count: _occurrences(answer, word) >= count
    ),
    "without": Rule("Do not use the word '{word}'.", lambda answer, word: _occurrences(answer, word) == 0),
    "begins": Rule("Begin with the words '{words}'.", lambda answer, words: answer.lower().startswith(words.lower())),
    "ends": Rule(
        "End with the words '{words}'.", lambda answer, words: answer.lower().rstrip(" .!\"'").endswith(words.lower())
    ),
    "quoted": Rule(
        "Put the whole answer in double quotation marks.",
        lambda answer: len(answer) > 2 and answer.startswith('"') and answer.endswith('"'),
    ),
    "title": Rule(
        "Give it a title in double angular brackets, such as <<title>>.",
        lambda answer: bool(re.search(r"<<[^<>\n]*\w[^<>\n]*>>", answer)),
    ),
    "blanks": Rule(
        "Leave at least {count} blanks in square brackets, such as [date].",
        lambda answer, count: len(set(re.findall(r"\[[^\[\]\n]*\w[^\[\]\n]*\]", answer))) >= count,
    ),
}

"""Notes are read part by part; after each the model rewrites its memory, from which alone it answers in the end.

The protocol is that of MemAgent (arXiv 2507.02259): the question is known from the beginning, and every step sees the
question, the memory and one part, and nothing that was said before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.suites.bundled.long_memory.scoring import process_results
from evaluation.suites.environment import Reply
from evaluation.suites.format import Split

_READ = """\
You read notes part by part, and keep a memory for a question that you will answer from the memory alone.

Question: {question}

Memory:
{memory}

Part {number} of {parts}:
{part}

Write the new memory, and nothing else. It replaces the old one, so repeat what you still need."""
_ANSWER = """\
You have read notes, and kept a memory of them for a question.

Question: {question}

Memory:
{memory}

Answer with the number only."""


def with_prompts(by_split: Mapping[Split, Sequence[Mapping[str, Any]]]) -> dict[Split, list[dict[str, Any]]]:
    """Return the items with the prompts that begin them."""
    return {
        split: [{**item, "prompt": _read(item, 0, "(empty)")} for item in items] for split, items in by_split.items()
    }


class Reading:
    """See `evaluation.suites.environment.Environment`."""

    def reset(self, item: Mapping[str, Any]) -> None:
        """Begin with the first part, which is in the prompt."""
        self._item, self._read = item, 1

    def step(self, answer: str) -> Reply:
        """Take an answer as the new memory, or in the end as the answer to the question."""
        parts = len(self._item["parts"])
        if self._read > parts:
            return Reply(score=process_results(self._item, [answer])["acc"])
        self._read += 1
        if self._read > parts:
            return Reply(_ANSWER.format(question=self._item["question"], memory=answer), forget=True)
        return Reply(_read(self._item, self._read - 1, answer), forget=True)


def _read(item: Mapping[str, Any], index: int, memory: str) -> str:
    parts = item["parts"]
    return _READ.format(question=item["question"], memory=memory, number=index + 1, parts=len(parts), part=parts[index])

"""Make the items of the suite `reasoning_gym` again, from the generators of the package of that name and fixed seeds.

    pip install --target DIR reasoning-gym==0.1.25
    PYTHONPATH=DIR python -m benchmarks.reasoning_gym evaluation/suites/bundled/reasoning_gym

The package brings fifty others, some in versions that do not go with rammerge's, so the items are kept and it is no
dependency. The generators are those whose answer is one short text that is compared, and that give the same problems
again: isomorphic_strings, ransom_note and list_functions depend on Python's hash seed, codeio on more. Of those that
score by other rules, game_of_life_halting and prime_factorization are broken.
"""

import json
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

_VERSION = "0.1.25"
_SEEDS = {"validation": (4, 1001), "test": (8, 2002)}  # problems of each kind, and their seed
_KINDS = (
    "aiw",
    "base_conversion",
    "basic_arithmetic",
    "binary_alternation",
    "caesar_cipher",
    "count_bits",
    "count_primes",
    "course_schedule",
    "gcd",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "maze",
    "number_sequence",
    "rotate_matrix",
    "simple_equations",
    "simple_geometry",
    "string_splitting",
    "syllogism",
    "word_sequence_reversal",
)
_QUESTION = "{question}\n\nEnd with a line that says 'Answer:' and the answer alone."


def main(folder: Path) -> None:
    """Write the items of both splits; the kinds take turns, so that the first items are a fair sample."""
    if version("reasoning-gym") != _VERSION:
        raise SystemExit(f"install reasoning-gym {_VERSION}, so that the items stay the same")
    asked: set[str] = set()
    for split, (count, seed) in _SEEDS.items():
        made = {kind: _problems(kind, count, seed, asked) for kind in _KINDS}
        items = [made[kind][number] for number in range(count) for kind in _KINDS]
        lines = (json.dumps(item, ensure_ascii=False, sort_keys=True) + "\n" for item in items)
        (folder / f"{split}.jsonl").write_text("".join(lines), "utf-8")


def _problems(kind: str, count: int, seed: int, asked: set[str]) -> list[dict[str, Any]]:
    """Return problems that were not `asked` before, and add them."""
    found: list[dict[str, Any]] = []
    for number, entry in enumerate(import_module("reasoning_gym").create_dataset(kind, size=8 * count, seed=seed)):
        question = entry["question"].strip()
        if question not in asked and len(found) < count:
            asked.add(question)
            prompt, target = _QUESTION.format(question=question), entry["answer"]
            found.append({"id": f"{kind}-{seed}-{number}", "kind": kind, "prompt": prompt, "target": target})
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))

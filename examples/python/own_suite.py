"""A suite of your own, from a package or a module: the path of its directory, here made by a script.

From a recipe beside this file: `trust: [own_suite]` and `evaluation: {suites: ["own_suite:SUMS"]}`. An installed
package offers it under an entry point of the group `rammerge.suites` instead. A directory alone needs neither.

`python examples/python/own_suite.py` writes the items again; the format is described in docs/suites.md.
"""

import json
import random
from pathlib import Path

SUMS = Path(__file__).parent / "sums"


def items(split: str, count: int) -> list[dict[str, str]]:
    """Return items of one split; the first number's parity keeps the splits apart."""
    chosen = random.Random(split)
    numbers = range(split == "test", 10, 2)
    pairs = [(chosen.choice(numbers), chosen.randrange(10)) for _ in range(count)]
    return [
        {"id": f"{split}-{index}", "prompt": f"{a} + {b} =", "target": str(a + b)} for index, (a, b) in enumerate(pairs)
    ]


if __name__ == "__main__":
    for name in ("validation", "test"):
        lines = [json.dumps(item) for item in items(name, 20)]
        (SUMS / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

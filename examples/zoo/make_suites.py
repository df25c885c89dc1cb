"""Write the data of the zoo's suites: `python -m examples.zoo.make_suites`.

The files depend only on the seeds below. The committed files are the result.
"""

import argparse
import json
from pathlib import Path
from typing import Literal

from examples.zoo.domains import DOMAINS, Domain
from rammerge.system.atomic import write_text

SUITES = Path(__file__).resolve().parents[2] / "evaluation" / "suites" / "bundled"
SEEDS: dict[Literal["validation", "test"], int] = {"validation": 2, "test": 3}
COUNTS: dict[Literal["validation", "test"], int] = {"validation": 200, "test": 300}


def jsonl(domain: Domain, split: Literal["validation", "test"]) -> str:
    """Return the text of one split's data file: one document per line."""
    items = domain.held_out(split, SEEDS[split], COUNTS[split])
    docs = ({"id": f"{domain.name}-{split}-{index:04d}", **item.doc} for index, item in enumerate(items))
    return "".join(json.dumps(doc) + "\n" for doc in docs)


def main() -> None:
    """Write every split of every domain below `--out`, by default into the bundled suites."""
    parser = argparse.ArgumentParser(description="Write the data files of the zoo's suites.")
    parser.add_argument("--out", type=Path, default=SUITES, help="folder that holds the suites' folders")
    out: Path = parser.parse_args().out
    for domain in DOMAINS.values():
        for split in SEEDS:
            write_text(out / f"zoo_{domain.name}" / f"{split}.jsonl", jsonl(domain, split))


if __name__ == "__main__":
    main()

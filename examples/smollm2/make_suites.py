"""Write the data of the suites: `python -m examples.smollm2.make_suites`.

The files depend only on the seeds below. The committed files are the result.
"""

import argparse
import json
from pathlib import Path
from typing import Literal

from examples.smollm2.domains import DOMAINS, Doc, Domain
from rammerge.system.atomic import write_text

SUITES = Path(__file__).resolve().parent / "suites"
SEEDS: dict[Literal["validation", "test"], int] = {"validation": 2, "test": 3}
COUNTS: dict[Literal["validation", "test"], int] = {"validation": 100, "test": 300}


def jsonl(domain: Domain, split: Literal["validation", "test"]) -> str:
    """Return the text of one split's data file: one document per line."""
    docs = domain.held_out(split, SEEDS[split], COUNTS[split])
    return "".join(json.dumps({"id": f"{domain.name}-{split}-{at:04d}", **doc}) + "\n" for at, doc in enumerate(docs))


def read_docs(domain: str, split: str) -> list[Doc]:
    """Return the documents of a suite's data file."""
    lines = (SUITES / domain / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main() -> None:
    """Write every split of every domain below `--out`, by default into the committed suites."""
    parser = argparse.ArgumentParser(description="Write the data files of the suites.")
    parser.add_argument("--out", type=Path, default=SUITES, help="folder that holds the suites' folders")
    out: Path = parser.parse_args().out
    for domain in DOMAINS.values():
        for split in SEEDS:
            write_text(out / domain.name / f"{split}.jsonl", jsonl(domain, split))


if __name__ == "__main__":
    main()

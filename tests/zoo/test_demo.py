"""Contract of `rammerge demo`: from the committed agents to a promoted model in one command; again, it does no work."""

import os
import re
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "rammerge", "demo"]


def demo(home: Path) -> tuple[str, str]:
    """Run it, and return what it printed to stdout and to stderr."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    environment["RAMMERGE_HOME"] = str(home)
    process = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout, process.stderr


def test_the_demo_promotes_a_merge_and_does_no_work_twice(rammerge_home: Path) -> None:
    first, steps = demo(rammerge_home)
    for row in (
        "base",
        "tool",
        "code",
        "memory",
        "average",
        "task_arithmetic-scale1.0",
        "ties",
        "ram",
        "ram_plus-paper",
    ):
        assert re.search(rf"^[ →]*{re.escape(row)} .*\d+\.\d \(\d+-\d+\)", first, re.MULTILINE), row
    assert "rammerge-zoo version 1 is champion now" in first
    assert "3 suites of 300 items" in first
    (count,) = re.findall(r"^(\d+) steps: \1 done, ", first, re.MULTILINE)
    assert len(re.findall(rf"^ *\d+/{count}  .* done ", steps, re.MULTILINE)) == int(count)

    second, _ = demo(rammerge_home)
    assert f"{count} steps: {count} cached, " in second

    def table(text: str) -> str:
        return text[text.index("Leaderboard") : text.index(f"{count} steps")]

    assert table(second) == table(first)

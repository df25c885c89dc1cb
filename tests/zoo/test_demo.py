"""Contract of `rammerge demo`: from the bundled agents to a promoted model in one command; again, it does no work.

It is run as a user has it: from the installed wheel, in an empty directory.
"""

import re
from pathlib import Path

import pytest

from tests.fixtures.installed import Installation

pytestmark = pytest.mark.long


def demo(installed: Installation, home: Path, directory: Path) -> tuple[str, str]:
    """Run it in an empty directory, and return what it printed to stdout and to stderr."""
    done = installed.run(installed.rammerge, "demo", cwd=directory, RAMMERGE_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(directory.iterdir())
    return done.stdout, done.stderr


def test_the_demo_promotes_a_merge_and_does_no_work_twice(
    installed: Installation, rammerge_home: Path, tmp_path: Path
) -> None:
    first, steps = demo(installed, rammerge_home, tmp_path)
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

    second, _ = demo(installed, rammerge_home, tmp_path)
    assert f"{count} steps: {count} cached, " in second

    def table(text: str) -> str:
        return text[text.index("Leaderboard") : text.index(f"{count} steps")]

    assert table(second) == table(first)

"""The record of a search: its history as data, for people and as figures."""

import json
from pathlib import Path
from typing import Self

from evaluation.report.searches import search_markdown
from evaluation.search.history import History
from rammerge.store import Entry
from rammerge.system.atomic import write_json, write_text
from tasks.runtime.result import Result
from tasks.runtime.step import step


class Searched(Result):
    """What became of a search: `search.json`, `search.md`, and figures of its history and of its best trade-offs.

    Attributes:
        markdown: the history for people.
    """

    markdown: str

    def load(self) -> History:
        """Return the history."""
        return History.model_validate_json((self.path / "search.json").read_text("utf-8"))

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that the step wrote."""
        markdown = (entry.path / "search.md").read_text("utf-8")
        return cls(path=entry.path, digest=entry.digest, markdown=markdown)


@step("searched", version=1, run_name="record the search", result=Searched)
def searched(out: Path, history: History) -> None:
    """Write `search.json`, `search.md`, `search-history.png` and `search-pareto.png`."""
    from evaluation.report.search_figures import history_png, pareto_png  # matplotlib takes a second to import

    write_json(out / "search.json", json.loads(history.model_dump_json()))
    write_text(out / "search.md", search_markdown(history))
    (out / "search-history.png").write_bytes(history_png(history))
    (out / "search-pareto.png").write_bytes(pareto_png(history))

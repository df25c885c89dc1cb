"""Small tables, as values, and what prints as tables: in terminals, notebooks and plain text."""

import html
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

# Wide enough for any table of ours: text that is kept or compared must not depend on a terminal.
_WIDTH = 400


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row, the others are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None

    def to_rich(self) -> "RichTable":
        """Return the table as rich prints it."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            longest = max((len(row[number]) for row in self.rows), default=0)
            # Where room is short, headings break before cells are cut.
            table.add_column(Text(column), justify="left" if number == 0 else "right", no_wrap=longest >= len(column))
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def to_html(self) -> str:
        """Return the table as HTML."""
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Shown(ABC):
    """A result that a shell prints as tables and sentences, and a notebook as HTML.

    A dataclass of this kind takes `repr=False`, which would otherwise replace the tables.
    """

    @abstractmethod
    def parts(self) -> Sequence[Table | str]:
        """Return what is shown, from top to bottom."""

    def __str__(self) -> str:
        return _to_text(self.parts())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return _to_html(self.parts())


def _to_text(parts: Sequence[Table | str]) -> str:
    """Return tables and sentences below one another as plain text."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False)
    for part in parts:
        console.print(part.to_rich() if isinstance(part, Table) else part, soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _to_html(parts: Sequence[Table | str]) -> str:
    """Return tables and sentences below one another as HTML."""
    return "\n".join(part.to_html() if isinstance(part, Table) else f"<p>{html.escape(part)}</p>" for part in parts)


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash if there is none."""
    return "-" if share is None else f"{share:.1%}"

"""A finished merge, as the user sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from rammerge.overlap import Overlap
from rammerge.publishing.manifest import Manifest
from rammerge.system.tables import Shown, Table, percent


@dataclass(frozen=True, repr=False)
class MergeReport(Shown):
    """A finished merge. It prints as a table, here and in notebooks.

    Attributes:
        path: the model directory.
        manifest: the content of its rammerge.json.
        overlap: the overlap that was counted or given, None for methods that need none.
        warnings: sentences that the user should read.
        seconds: duration by stage.
        nbytes: size of the weights.
    """

    path: Path
    manifest: Manifest
    overlap: Overlap | None
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    nbytes: int

    def table(self) -> Table:
        """Return what the merge did to each agent's changes."""
        factors = self.manifest.factors or {}
        rows = []
        for name, agent in self.manifest.survival.agents.items():
            counts = [f"{count:,}" for count in (agent.active, agent.unique, agent.shared)]
            factor = f"{factors[name]:.4f}" if name in factors else "-"
            rows.append([name, *counts, factor, percent(agent.survived_share)])
        return Table(["agent", "changed", "unique", "shared", "lambda", "kept after rounding"], rows)

    def note(self) -> str:
        """Return the sentence that says how much the output dtype kept."""
        kept = percent(self.manifest.survival.kept_share)
        return f"{kept} of the merged change is kept in {self.manifest.settings.dtype}"

    def where(self) -> str:
        """Return the sentence that says where the model is, how large, and what took how long."""
        seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in self.seconds.items())
        return f"{self.path}: {decimal(self.nbytes)} ({seconds})"

    def parts(self) -> list[Table | str]:
        """Return what a shell or a notebook shows."""
        return [self.table(), self.note(), *(f"warning: {warning}" for warning in self.warnings), self.where()]

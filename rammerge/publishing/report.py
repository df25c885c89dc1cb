"""A finished merge, as the user sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from rammerge.overlap import Overlap, Survival
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
        return table_of(self.manifest.survival, self.manifest.factors)

    def note(self) -> str:
        """Return the sentence that says how much the output dtype kept."""
        return note_of(self.manifest.survival, self.manifest.settings.dtype)

    def where(self) -> str:
        """Return the sentence that says where the model is, how large, and what took how long."""
        seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in self.seconds.items())
        return f"{self.path}: {decimal(self.nbytes)} ({seconds})"

    def parts(self) -> list[Table | str]:
        """Return what a shell or a notebook shows."""
        return [self.table(), self.note(), *(f"warning: {warning}" for warning in self.warnings), self.where()]


@dataclass(frozen=True, repr=False)
class Trial(Shown):
    """A finished merge into a loaded model. It prints as a table, here and in notebooks.

    Attributes:
        survival: what the dtype of the model kept.
        factors: each agent's lambda, when the method has one for the whole model.
        overlap: the overlap that was counted or given, None for methods that need none.
        warnings: sentences that the user should read.
        seconds: how long it took.
        dtype: of the model.
    """

    survival: Survival
    factors: Mapping[str, float] | None
    overlap: Overlap | None
    warnings: tuple[str, ...]
    seconds: float
    dtype: str

    def parts(self) -> list[Table | str]:
        """Return what a shell or a notebook shows."""
        said = [*(f"warning: {warning}" for warning in self.warnings), f"merged in {self.seconds:.2f} s"]
        return [table_of(self.survival, self.factors), note_of(self.survival, self.dtype), *said]


def table_of(survival: Survival, factors: Mapping[str, float] | None) -> Table:
    """Return what a merge did to each agent's changes."""
    rows = []
    for name, agent in survival.agents.items():
        counts = [f"{count:,}" for count in (agent.active, agent.unique, agent.shared)]
        factor = f"{factors[name]:.4f}" if factors and name in factors else "-"
        rows.append([name, *counts, factor, percent(agent.survived_share)])
    return Table(["agent", "changed", "unique", "shared", "lambda", "changed in the merge"], rows)


def note_of(survival: Survival, dtype: str) -> str:
    """Return the sentence that says how much the output dtype kept."""
    return f"{percent(survival.kept_share)} of the merged change is kept in {dtype}"

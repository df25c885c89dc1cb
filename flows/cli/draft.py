"""The text of a first recipe, complete and with explanations for somebody who has never written one."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from flows.cli.survey import Survey
from rammerge.recipe import quoted
from rammerge.rules import METHODS

_WIDTH = 110
_DEMO_SUITES = ("zoo_code", "zoo_memory", "zoo_tool")
_LARGE = 3_000_000_000  # in float32, larger models do not fit into most GPUs
# One variant or sweep of each family. The recipe lists the other methods as comments.
_MERGES = {
    "average": "average",
    "task_arithmetic": "{method: task_arithmetic, sweep: {scale: [0.5, 0.75, 1.0]}}",
    "ties": "ties",
    "ram": "ram",
    "ram_plus": "{method: ram_plus, preset: paper}",
}


@dataclass(frozen=True)
class Draft:
    """The contents of the recipe.

    Attributes:
        name: the name of the recipe and of the registered model.
        file: the recipe's file, as the commands in its first lines write it.
        base: the base's source, as the recipe writes it.
        agents: name -> source, as the recipe writes it.
        suites: bundled names or directories; empty for the bundled ones, with which nothing is promoted.
        found: the survey of the models; None if they must be downloaded first.
        inspect: the command that measures the overlap.
    """

    name: str
    file: str
    base: str
    agents: Mapping[str, str]
    suites: Sequence[str]
    found: Survey | None
    inspect: str

    def text(self) -> str:
        """Return the recipe's text."""
        parts = (
            self._head(),
            self._base(),
            self._agents(),
            self._merges(),
            self._output(),
            self._compute(),
            self._evaluation(),
            self._gates(),
            self._registry(),
        )
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def _head(self) -> Iterator[str]:
        yield "# Which agents are merged into one model, how the merges are judged, and what may be promoted."
        yield "#"
        yield f"#   rammerge check {self.file}   looks up everything that this file names, without doing any work"
        yield f"#   rammerge run {self.file}     does the work, except for work that was done before"
        yield "#"
        yield "# Paths are relative to this file. docs/recipe.md explains every key."
        yield f"name: {quoted(self.name)}"

    def _base(self) -> Iterator[str]:
        about = "The model that every agent was trained from"
        if self.found:
            size, stored = _count(self.found.parameters), " and ".join(self.found.stored)
            yield from comment(f"{about}: {self.found.kind}, {size}, stored as {stored}.")
        else:
            yield from comment(f"{about}. Models from the hub are examined after the download.")
            yield from comment("To pin a model to one commit, write {source: ORG/NAME, revision: SHA}.")
        yield f"base: {quoted(self.base)}"

    def _agents(self) -> Iterator[str]:
        yield from comment("The models to merge, each trained from the base by reinforcement learning.")
        yield from self._overlap()
        for warning in self.found.warnings if self.found else ():
            yield from comment(f"Note: {warning}.")
        yield "agents:"
        for name, source in self.agents.items():
            yield f"  {quoted(name)}: {quoted(source)}"

    def _overlap(self) -> Iterator[str]:
        overlap = self.found and self.found.overlap
        if not overlap:
            yield "# RAM expects changes that are sparse and overlap little. This measures it:"
            yield f"#   {self.inspect}"
            return
        width = max(map(len, self.agents))
        for name, row in overlap.summary().items():
            shared = (
                f", {1 - row['unique_share']:.0%} of them together with other agents" if len(self.agents) > 1 else ""
            )
            yield f"#   {name:<{width}}  changed {row['density']:.1%} of the weights{shared}"

    def _merges(self) -> Iterator[str]:
        yield from comment(
            "The variants. Each is merged and evaluated; the best one on the validation splits is chosen. "
            "`rammerge methods` lists the parameters, the presets and where they come from."
        )
        yield "merges:"
        for method, written in _MERGES.items():
            yield f"  # {METHODS[method].summary}"
            yield f"  - {written}"
        yield "  # Remove the # to try these too:"
        for method in METHODS:
            if method not in _MERGES:
                yield f"  # - {method:<16} # {METHODS[method].summary}"

    def _output(self) -> Iterator[str]:
        size = decimal(4 * self.found.parameters) if self.found else "four bytes per parameter"
        yield from comment(
            f"float32 keeps everything that a merge computes; a variant takes {size}. bfloat16 takes half of that, but "
            "rounds away much of what RAM+ adds to RAM; the run reports how much."
        )
        yield "output:"
        yield "  dtype: float32"
        if self.found and self.found.resize == "common":
            yield from comment("An agent's vocabulary has grown: merge the rows that it shares with the base.", "  ")
            yield "  resize: common"

    def _compute(self) -> Iterator[str]:
        yield "# Where merges and models run: cpu, cuda or cuda:N."
        yield "compute:"
        yield "  device: cpu"

    def _evaluation(self) -> Iterator[str]:
        yield from comment(
            "How the models are evaluated. A suite has the questions of one domain in two splits: variants are chosen "
            "on validation and judged on test. Give a suite for each skill that the merged model must have."
        )
        yield "evaluation:"
        if not self.suites:
            yield from comment(
                "These suites were made for the demo's small models; here they only show that everything runs. Replace "
                "them by others that `rammerge suites` lists, or by directories of your own, each with a suite.yaml as "
                "in docs/suites.md.",
                "  ",
            )
        yield "  suites:"
        for suite in self.suites or _DEMO_SUITES:
            yield f"    - {quoted(suite)}"
        large = self.found is not None and self.found.parameters > _LARGE
        yield "  # Every model is loaded in this dtype, so that scores can be compared."
        yield f"  dtype: {'bfloat16' if large else 'float32'}"
        yield f"  batch_size: {'auto' if large else 100}"
        yield "  # limit: 20    # items per suite and split, for a first look"

    def _gates(self) -> Iterator[str]:
        yield "# What the chosen variant must show on the test splits to be promoted."
        yield "gates:"
        yield "  # It has unlearned nothing: it is less than 2 points below the base on every suite."
        yield "  - {rule: not_worse_than_base, margin: 0.02}"
        yield "  # Merging was worth it: its average is above every single agent's."
        yield "  - {rule: beats_every_agent}"
        yield "  # - {rule: min_score, value: 0.6}    # its average is at least 60 %"

    def _registry(self) -> Iterator[str]:
        yield from comment(
            "The chosen variant becomes a version of this model in MLflow's registry. If every gate passes, it also "
            "becomes the champion, unless promote is false. `rammerge rollback` brings the previous champion back."
        )
        yield "registry:"
        yield f"  model: {quoted(self.name)}"
        if not self.suites:
            yield "  # Set this to true once the suites above are your own: the demo's say nothing about your models."
        yield f"  promote: {'true' if self.suites else 'false'}"


def comment(text: str, indent: str = "") -> list[str]:
    """Return text as lines of a comment in a recipe."""
    prefix = f"{indent}# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False
    )


def _count(parameters: int) -> str:
    """Return a number of parameters in words, such as `494 million parameters`."""
    for size, word in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if parameters >= size:
            return f"{parameters / size:.3g}{word} parameters"
    return f"{parameters} parameters"

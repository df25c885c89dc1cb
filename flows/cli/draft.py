"""The text of a first recipe: complete, and with the words that someone needs who has never written one."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from evaluation.suites import available_suites
from flows.cli.survey import Survey
from rammerge.recipe import quoted
from rammerge.rules import METHODS

_WIDTH = 110
_LARGE = 3_000_000_000  # from here on, float32 is more than most GPUs hold
# One variant or sweep of each family. The other methods stand below them as comments.
_MERGES = {
    "average": "average",
    "task_arithmetic": "{method: task_arithmetic, sweep: {scale: [0.5, 0.75, 1.0]}}",
    "ties": "ties",
    "ram": "ram",
    "ram_plus": "{method: ram_plus, preset: paper}",
}


@dataclass(frozen=True)
class Draft:
    """What the recipe is made from.

    Attributes:
        name: of the recipe and of the registered model.
        file: what the commands in its first lines call the recipe.
        base: source, as the recipe is to write it.
        agents: name -> source, likewise.
        suites: bundled names or directories; empty for the bundled ones, to be replaced.
        found: what a look at the models has shown; None where they have to be downloaded first.
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
        """Return the recipe."""
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
        yield f"#   rammerge run {self.file}     does the work; what was done before is not done again"
        yield "#"
        yield "# Paths are relative to this file. docs/recipe.md explains every key that there is."
        yield f"name: {quoted(self.name)}"

    def _base(self) -> Iterator[str]:
        about = "The model that every agent was trained from"
        if self.found:
            size, stored = _count(self.found.parameters), " and ".join(self.found.stored)
            yield from _comment(f"{about}: {self.found.kind}, {size}, stored as {stored}.")
        else:
            yield from _comment(f"{about}. What comes from the hub is looked at once it is here.")
            yield from _comment("To pin a model to one commit, write {source: ORG/NAME, revision: SHA}.")
        yield f"base: {quoted(self.base)}"

    def _agents(self) -> Iterator[str]:
        yield from _comment("The models to merge, each trained from the base by reinforcement learning.")
        yield from self._overlap()
        for warning in self.found.warnings if self.found else ():
            yield from _comment(f"Note: {warning}.")
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
        yield from _comment(
            "The variants. Each is merged and evaluated; the one that does best on the validation splits is chosen. "
            "`rammerge methods` lists the parameters, the presets and where they come from."
        )
        yield "merges:"
        for method, written in _MERGES.items():
            yield f"  # {METHODS[method].summary}"
            yield f"  - {written}"
        yield "  # Take away the # to try these, too:"
        for method in METHODS:
            if method not in _MERGES:
                yield f"  # - {method:<16} # {METHODS[method].summary}"

    def _output(self) -> Iterator[str]:
        size = decimal(4 * self.found.parameters) if self.found else "four bytes a parameter"
        yield from _comment(
            f"float32 keeps all that a merge computes; a variant takes {size}. bfloat16 takes half of that, and rounds "
            "away much of what RAM+ adds to RAM: the run says how much."
        )
        yield "output:"
        yield "  dtype: float32"
        if self.found and self.found.resize == "common":
            yield from _comment("An agent's vocabulary has grown: merge the rows that it shares with the base.", "  ")
            yield "  resize: common"

    def _compute(self) -> Iterator[str]:
        yield "# Where merges and models run: cpu, cuda or cuda:N."
        yield "compute:"
        yield "  device: cpu"

    def _evaluation(self) -> Iterator[str]:
        yield from _comment(
            "What the models are asked. A suite has the questions of one domain in two splits: variants are chosen on "
            "validation and judged on test. Give a suite for each thing that the merged model has to be good at."
        )
        yield "evaluation:"
        if not self.suites:
            yield from _comment(
                "These are the demo's, made for its own small models: put directories of yours in their place. Each "
                "has a suite.yaml, as docs/suites.md shows.",
                "  ",
            )
        yield "  suites:"
        for suite in self.suites or available_suites():
            yield f"    - {quoted(suite)}"
        large = self.found is not None and self.found.parameters > _LARGE
        yield "  # Every model is loaded in this one dtype, or scores would not compare."
        yield f"  dtype: {'bfloat16' if large else 'float32'}"
        yield f"  batch_size: {16 if large else 100}"
        yield "  # limit: 20    # items of each suite and split, for a first look"

    def _gates(self) -> Iterator[str]:
        yield "# What the chosen variant has to show on the test splits to be promoted."
        yield "gates:"
        yield "  # It has unlearned nothing: on no suite is it 2 points below the base."
        yield "  - {rule: not_worse_than_base, margin: 0.02}"
        yield "  # Merging was worth it: its average is above every single agent's."
        yield "  - {rule: beats_every_agent}"
        yield "  # - {rule: min_score, value: 0.6}    # its average is 60 % or more"

    def _registry(self) -> Iterator[str]:
        yield from _comment(
            "The chosen variant becomes a version of this model in MLflow's registry, and its champion when every gate "
            "passes; with promote: false it never does. `rammerge rollback` goes back."
        )
        yield "registry:"
        yield f"  model: {quoted(self.name)}"
        yield "  promote: true"


def _comment(text: str, indent: str = "") -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False
    )


def _count(parameters: int) -> str:
    """Return a number of parameters as people say it, such as `494 million parameters`."""
    for size, word in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if parameters >= size:
            return f"{parameters / size:.3g}{word} parameters"
    return f"{parameters} parameters"

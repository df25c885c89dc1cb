"""The model card of a merged model, made from the manifest alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from rammerge.publishing.identity import Settings
from rammerge.publishing.manifest import Manifest


def model_card(manifest: Manifest, warnings: Sequence[str]) -> str:
    """Return the README.md of a merged model, with the front matter that model hubs read."""
    settings = manifest.settings
    parameters = _listed(settings.params) or "none"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [merge, rammerge]",
        "---",
        "",
        f"# A merge of {len(manifest.survival.agents)} agents by {settings.method}",
        "",
        f"Made by rammerge {manifest.rammerge}. Method: `{settings.method}` ({manifest.formula}); "
        f"parameters: {parameters}. Stored in {settings.dtype}, rounding {settings.rounding}.",
        "",
        *_exceptions(settings),
        "| role | source | revision | content digest |",
        "|---|---|---|---|",
        *(
            f"| {name} | `{source.source}` | {source.revision or '-'} | `{source.digest[:16]}` |"
            for name, source in manifest.sources.items()
        ),
        "",
        "| agent | changed elements | unique | shared | kept after rounding | lambda |",
        "|---|---|---|---|---|---|",
        *_agent_rows(manifest),
        "",
        *(f"> {warning}\n" for warning in warnings),
        "`rammerge.json` beside this file has the full provenance; `rammerge verify` checks every file against it.",
        "",
    ]
    return "\n".join(lines)


def _exceptions(settings: Settings) -> list[str]:
    """Return which agents are means, and what was done differently with some agents and tensors."""
    groups = (settings.groups or {}).items()
    lines = [f"Agent {name} is the mean of {', '.join(members)}." for name, members in groups]
    if settings.weights:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in settings.weights.items())
        lines.append(f"Weights of task vectors: {weights}; the others 1.")
    for rule in settings.tensors or ():
        what = f"copied from {rule['use']}" if "use" in rule else f"merged with {_listed(rule['params'])}"
        lines.append(f"Tensors `{rule['match']}`: {what}.")
    return [line for text in lines for line in (text, "")]


def _listed(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in params.items())


def _agent_rows(manifest: Manifest) -> list[str]:
    factors = manifest.factors or {}
    rows = []
    for name, agent in manifest.survival.agents.items():
        kept = "-" if agent.survived_share is None else f"{agent.survived_share:.1%}"
        factor = f"{factors[name]:.4f}" if name in factors else "-"
        rows.append(f"| {name} | {agent.active:,} | {agent.unique:,} | {agent.shared:,} | {kept} | {factor} |")
    return rows

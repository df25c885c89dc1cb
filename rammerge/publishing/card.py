"""The model card of a merged model, made from the manifest alone."""

from collections.abc import Sequence

from rammerge.publishing.identity import listed
from rammerge.publishing.manifest import Manifest


def model_card(manifest: Manifest, warnings: Sequence[str]) -> str:
    """Return the README.md of a merged model, with the front matter that model hubs read."""
    settings = manifest.settings
    parameters = listed(settings.params) or "none"
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
        *(line for sentence in settings.exceptions() for line in (sentence, "")),
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


def _agent_rows(manifest: Manifest) -> list[str]:
    factors = manifest.factors or {}
    rows = []
    for name, agent in manifest.survival.agents.items():
        kept = "-" if agent.survived_share is None else f"{agent.survived_share:.1%}"
        factor = f"{factors[name]:.4f}" if name in factors else "-"
        rows.append(f"| {name} | {agent.active:,} | {agent.unique:,} | {agent.shared:,} | {kept} | {factor} |")
    return rows

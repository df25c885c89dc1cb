"""The model card of a merged model, made from the manifest alone."""

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(manifest: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """Return the README.md of a merged model, with the front matter that model hubs read."""
    method, recipe = manifest["method"], manifest["recipe"]
    sources = manifest["sources"]
    settings = ", ".join(f"{key} = {value}" for key, value in method["params"].items()) or "none"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [merge, rammerge]",
        "---",
        "",
        f"# A merge of {len(sources) - 1} agents by {method['method']}",
        "",
        f"Made by rammerge {manifest['rammerge']}. Method: `{method['method']}` ({method['source']}); "
        f"parameters: {settings}. Stored in {recipe['dtype']}, rounding {recipe['rounding']}.",
        "",
        "| role | source | revision | content digest |",
        "|---|---|---|---|",
        *(
            f"| {name} | `{source['source']}` | {source['revision'] or '-'} | `{source['digest'][:16]}` |"
            for name, source in sources.items()
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


def _agent_rows(manifest: Mapping[str, Any]) -> list[str]:
    lambdas = manifest["lambda"] or {}
    rows = []
    for name, row in manifest["rounding_report"]["agents"].items():
        kept = "-" if row["survived_share"] is None else f"{row['survived_share']:.1%}"
        factor = f"{lambdas[name]:.4f}" if name in lambdas else "-"
        rows.append(f"| {name} | {row['active']:,} | {row['unique']:,} | {row['shared']:,} | {kept} | {factor} |")
    return rows

"""The model card of a merged model, made from the manifest alone."""

from collections.abc import Sequence
from typing import Any

from rammerge.checkpoints.licences import about_licences, terms_of
from rammerge.publishing.identity import listed
from rammerge.publishing.manifest import Manifest


def model_card(manifest: Manifest, warnings: Sequence[str]) -> str:
    """Return the README.md of a merged model, with the front matter that model hubs read."""
    settings = manifest.settings
    parameters = listed(settings.params) or "none"
    lines = [
        *_front_matter(manifest),
        "",
        f"# A merge of {len(manifest.survival.agents)} agents by {settings.method}",
        "",
        f"Made by rammerge {manifest.rammerge}. Method: `{settings.method}` ({manifest.formula}); "
        f"parameters: {parameters}. Stored in {settings.dtype}, rounding {settings.rounding}.",
        "",
        *(line for sentence in settings.exceptions() for line in (sentence, "")),
        "| role | source | revision | content digest | licence |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | `{source.source}` | {source.revision or '-'} | `{source.digest[:16]}` "
            f"| {source.licence or 'unknown'} |"
            for name, source in manifest.sources.items()
        ),
        "",
        *_licences(manifest),
        "| agent | changed elements | unique | shared | changed in the merge | lambda |",
        "|---|---|---|---|---|---|",
        *_agent_rows(manifest),
        "",
        *(f"> {warning}\n" for warning in warnings),
        "`rammerge.json` beside this file has the full provenance; `rammerge verify` checks every file against it.",
        "",
    ]
    return "\n".join(lines)


def _front_matter(manifest: Manifest) -> list[str]:
    """Return the YAML that model hubs read: the models of a hub that it was made from, and a licence if all agree."""
    import yaml  # after the merge, so that commands which make none do not wait for it

    licences = {source.licence for source in manifest.sources.values()}
    one = next(iter(licences)) if len(licences) == 1 else None
    lineage = list(dict.fromkeys(source.source for source in manifest.sources.values() if source.revision))
    found: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "rammerge"]}
    if one and terms_of(one) in ("permissive", "copyleft"):
        found["license"] = one
    elif one:  # hubs refuse a card with a name that they do not know
        found |= {"license": "other", "license_name": one}
    if lineage:
        found |= {"base_model": lineage, "base_model_relation": "merge"}
    return ["---", *yaml.safe_dump(found, sort_keys=False).splitlines(), "---"]


def _licences(manifest: Manifest) -> list[str]:
    """Return what the sources' licences mean for the merge, as far as that is known."""
    licences = {name: source.licence for name, source in manifest.sources.items()}
    unknown = [name for name, licence in licences.items() if licence is None or terms_of(licence) is None]
    said = [f"> {problem}" for problem in about_licences(licences)]
    if unknown:
        said.append(f"The terms of {', '.join(unknown)} are not known; read them before you give this model away.")
    return [line for sentence in said for line in (sentence, "")]


def _agent_rows(manifest: Manifest) -> list[str]:
    factors = manifest.factors or {}
    rows = []
    for name, agent in manifest.survival.agents.items():
        kept = "-" if agent.survived_share is None else f"{agent.survived_share:.1%}"
        factor = f"{factors[name]:.4f}" if name in factors else "-"
        rows.append(f"| {name} | {agent.active:,} | {agent.unique:,} | {agent.shared:,} | {kept} | {factor} |")
    return rows

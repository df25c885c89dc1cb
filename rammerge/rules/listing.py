"""The methods as plain data, and as text for people."""

from typing import Any

from rammerge.rules import STEPS, Method, all_methods
from rammerge.rules.spectral.steps import ThenStep


class MethodListing(dict[str, dict[str, Any]]):
    """Method name -> its summary, source, parameters, presets and the steps that may follow it, as plain data.

    It prints like `rammerge methods`.
    """

    def __str__(self) -> str:
        entries = {**self, **self.steps()}.items()
        return "\n\n".join("\n".join([f"{name}  {entry['summary']}", *details(entry)]) for name, entry in entries)

    def steps(self) -> dict[str, dict[str, Any]]:
        """Return what may follow a method, by name, as plain data like that of the methods."""
        return {name: step for method in self.values() for name, step in method["then"].items()}

    def __repr__(self) -> str:
        return str(self)


def list_methods() -> MethodListing:
    """Return the merge methods with their parameters (as JSON schemas), defaults, presets and sources."""
    return MethodListing({name: _describe(method) for name, method in all_methods().items()})


def details(entry: dict[str, Any]) -> list[str]:
    """Return the lines after the summary of a method or a step: its source, its parameters and its presets."""
    lines = [f"  source: {entry['source']}"]
    if entry.get("needs_prompts"):
        lines.append("  needs data: `prompts`, a file of unlabeled texts, which the base reads")
    for key, schema in entry["parameters"].items():
        choices = f" ({', '.join(schema['enum'])})" if "enum" in schema else ""
        lines.append(f"  {key} = {schema['default']}: {schema['description']}{choices}")
    for preset, given in entry.get("presets", {}).items():
        values = ", ".join(f"{key} = {value}" for key, value in given["params"].items())
        lines.append(f"  preset {preset}: {values} ({given['source']})")
    return lines


def _describe(method: Method) -> dict[str, Any]:
    presets = {
        preset: {"params": dict(values), "source": method.preset_sources.get(preset, "")}
        for preset, values in method.presets.items()
    }
    steps = {} if method.refuses_steps else {name: _said(step) for name, step in STEPS.items()}
    return _said(method) | {"presets": presets, "then": steps, "needs_prompts": method.needs_prompts}


def _said(entry: Method | ThenStep) -> dict[str, Any]:
    parameters = entry.params.model_json_schema().get("properties", {})
    return {"summary": entry.summary, "source": entry.source, "parameters": parameters}

"""The methods as plain data, and as text for people."""

from typing import Any

from rammerge.rules import Method, all_methods


class MethodListing(dict[str, dict[str, Any]]):
    """Method name -> its summary, source, parameters and presets, as plain data. It prints like `rammerge methods`."""

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join([f"{name}  {method['summary']}", *details(method)]) for name, method in self.items()
        )

    def __repr__(self) -> str:
        return str(self)


def list_methods() -> MethodListing:
    """Return the merge methods with their parameters (as JSON schemas), defaults, presets and sources."""
    return MethodListing({name: _describe(method) for name, method in all_methods().items()})


def details(method: dict[str, Any]) -> list[str]:
    """Return the lines after a method's summary: its source, its parameters and its presets."""
    lines = [f"  source: {method['source']}"]
    for key, schema in method["parameters"].items():
        choices = f" ({', '.join(schema['enum'])})" if "enum" in schema else ""
        lines.append(f"  {key} = {schema['default']}: {schema['description']}{choices}")
    for preset, entry in method["presets"].items():
        values = ", ".join(f"{key} = {value}" for key, value in entry["params"].items())
        lines.append(f"  preset {preset}: {values} ({entry['source']})")
    return lines


def _describe(method: Method) -> dict[str, Any]:
    return {
        "summary": method.summary,
        "source": method.source,
        "parameters": method.params.model_json_schema().get("properties", {}),
        "presets": {
            preset: {"params": dict(values), "source": method.preset_sources.get(preset, "")}
            for preset, values in method.presets.items()
        },
    }

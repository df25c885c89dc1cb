"""The recipe: one YAML file that says what is merged, how it is judged and what may be promoted."""

from rammerge.recipe.model import Gate, Merge, Recipe, Source, Variant, parse_size, schema
from rammerge.recipe.reading import load

__all__ = ["Gate", "Merge", "Recipe", "Source", "Variant", "load", "parse_size", "schema"]

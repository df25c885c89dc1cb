"""The recipe: one YAML file that says what is merged, how it is judged and what may be promoted."""

from rammerge.recipe.model import Compute, Evaluation, Gate, Merge, Output, Recipe, Source, Variant, schema
from rammerge.recipe.reading import load

__all__ = [
    "Compute",
    "Evaluation",
    "Gate",
    "Merge",
    "Output",
    "Recipe",
    "Source",
    "Variant",
    "load",
    "schema",
]

"""The recipe: one YAML file that says what to merge, how to judge the merges and what may be promoted."""

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

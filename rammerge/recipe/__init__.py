"""The recipe: one YAML file that says what to merge, how to judge the merges and what may be promoted."""

from rammerge.recipe.model import Compute, Evaluation, Merge, Output, Recipe, Source, Variant, is_name, schema
from rammerge.recipe.reading import load, parse, quoted

__all__ = [
    "Compute",
    "Evaluation",
    "Merge",
    "Output",
    "Recipe",
    "Source",
    "Variant",
    "is_name",
    "load",
    "parse",
    "quoted",
    "schema",
]

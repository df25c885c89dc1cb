"""The recipe: one YAML file that says what to merge, how to judge the merges and what may be promoted."""

from rammerge.recipe.compute import Compute, parse_runner
from rammerge.recipe.evaluation import Evaluation
from rammerge.recipe.location import Location
from rammerge.recipe.merges import Merge, Variant, WrittenStep, unknown_steps, with_values
from rammerge.recipe.model import Output, Recipe, schema
from rammerge.recipe.reading import load, parse, quoted
from rammerge.recipe.registry import Happening, Notify
from rammerge.recipe.search import Domain, Search
from rammerge.recipe.section import as_name, is_name
from rammerge.recipe.sources import Source, is_commit, name_members
from rammerge.recipe.yardsticks import ROUTER, Yardstick

__all__ = [
    "ROUTER",
    "Compute",
    "Domain",
    "Evaluation",
    "Happening",
    "Location",
    "Merge",
    "Notify",
    "Output",
    "Recipe",
    "Search",
    "Source",
    "Variant",
    "WrittenStep",
    "Yardstick",
    "as_name",
    "is_commit",
    "is_name",
    "load",
    "name_members",
    "parse",
    "parse_runner",
    "quoted",
    "schema",
    "unknown_steps",
    "with_values",
]

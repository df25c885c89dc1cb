"""The report of a run: one HTML file that needs no script, no server and no network."""

from evaluation.report.page.atlas import Atlas, build_atlas
from evaluation.report.page.content import AgentChange, Cost, Page, VariantFacts
from evaluation.report.page.facing import facing
from evaluation.report.page.flips import Flip, find_flips, read_samples
from evaluation.report.page.writing import to_page

__all__ = [
    "AgentChange",
    "Atlas",
    "Cost",
    "Flip",
    "Page",
    "VariantFacts",
    "build_atlas",
    "facing",
    "find_flips",
    "read_samples",
    "to_page",
]

"""The report of a run: one HTML file that needs no script, no server and no network."""

from evaluation.report.page.atlas import Atlas, build_atlas
from evaluation.report.page.content import AgentChange, Page, VariantFacts
from evaluation.report.page.flips import Flip, find_flips
from evaluation.report.page.writing import to_page

__all__ = ["AgentChange", "Atlas", "Flip", "Page", "VariantFacts", "build_atlas", "find_flips", "to_page"]

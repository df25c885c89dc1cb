"""Running programs that a model wrote: in a sandbox that was seen to hold, or not at all."""

from evaluation.sandbox.finding import Sandbox, find_sandbox
from evaluation.sandbox.limits import Limits
from evaluation.sandbox.testing import run_tests

__all__ = ["Limits", "Sandbox", "find_sandbox", "run_tests"]

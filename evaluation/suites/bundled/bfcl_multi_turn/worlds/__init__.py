"""The worlds that BFCL's functions change, of our own: what they tell is what BFCL's tell.

Attributes whose names do not begin with an underscore are the state that is compared in the end.
"""

from collections.abc import Callable
from typing import Any

from evaluation.suites.bundled.bfcl_multi_turn.worlds.files import GorillaFileSystem
from evaluation.suites.bundled.bfcl_multi_turn.worlds.maths import MathAPI
from evaluation.suites.bundled.bfcl_multi_turn.worlds.messages import MessageAPI
from evaluation.suites.bundled.bfcl_multi_turn.worlds.posts import TwitterAPI
from evaluation.suites.bundled.bfcl_multi_turn.worlds.tickets import TicketAPI
from evaluation.suites.bundled.bfcl_multi_turn.worlds.trading import TradingBot
from evaluation.suites.bundled.bfcl_multi_turn.worlds.travel import TravelAPI
from evaluation.suites.bundled.bfcl_multi_turn.worlds.vehicle import VehicleControlAPI

WORLDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    made.__name__: made
    for made in (
        GorillaFileSystem,
        MathAPI,
        MessageAPI,
        TicketAPI,
        TradingBot,
        TravelAPI,
        TwitterAPI,
        VehicleControlAPI,
    )
}

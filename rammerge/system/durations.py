"""Times as people write them."""

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# The longest time that timers take on every platform.
_MOST_DAYS = 1000


def parse_duration(text: str) -> float:
    """Return the seconds that `text` means (`90s`, `30m`, `1.5h`, `2d`).

    Raises:
        ValueError: `text` is not a time.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= _MOST_DAYS * _SECONDS["d"]:
        raise ValueError(f"a time is a number with a unit, such as 90s, 30m, 12h or 2d, and at most {_MOST_DAYS}d")
    return seconds

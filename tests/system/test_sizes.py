"""Contract: a size, and a time, means the same everywhere, and text that is neither is refused."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rammerge.system.durations import parse_duration
from rammerge.system.sizes import parse_size


@given(st.integers(1, 10**12), st.sampled_from(["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]), st.booleans())
def test_sizes(number: int, prefix: str, spelled_out: bool) -> None:
    step = 1024 if "i" in prefix else 1000
    size = number * step ** (" KMGT".index(prefix[0].upper()) if prefix else 0)
    unit = prefix + "B" * spelled_out
    assume(unit or size >= 1000)
    for text in (f"{number}{unit}", f"{number} {unit}".strip(), f"{number}{unit}".lower(), f"{number}{unit}".upper()):
        assert parse_size(text) == size


def test_fractions_are_exact() -> None:
    assert parse_size("1.5GiB") == 3 << 29
    assert parse_size("0.1TB") == 10**11


@pytest.mark.parametrize(
    "text", ["", "x", "lots", "-1GB", "0", "0GB", "0.1B", "1e3GB", "5 G B", "5.5.5GB", "1QB", "5i", "٣GB", "50", "999"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number with a unit, such as 5GB or 512MiB"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2 d ", 172_800)])
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "-1h", "1e3s", "90", "5 weeks", "٣h", "1001d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="a time is a number with a unit, such as 90s"):
        parse_duration(text)

"""What every shared place must do, said by a dictionary."""

from pathlib import Path

from hypothesis import strategies as st

from rammerge.storage import Place

Action = tuple[str, str, bytes]

_NAMES = st.sampled_from(["a", "merge/k/manifest.json", "merge/k/0f", "suite/k/1e"])
ACTIONS = st.tuples(st.sampled_from(["put", "create", "delete"]), _NAMES, st.binary(max_size=40))


def check(place: Place, actions: list[Action], scratch: Path) -> None:
    """Do the actions to an empty place and to a dictionary, and compare what both hold then."""
    held: dict[str, bytes] = {}
    for verb, name, content in actions:
        if verb == "put":
            scratch.write_bytes(content)
            place.put(name, scratch)
            held[name] = content
        elif verb == "create":
            assert place.create(name, content) == (held.setdefault(name, content) == content)
        else:
            place.delete(name)
            held.pop(name, None)
    assert {stored.name: stored.size for stored in place.list("")} == {name: len(each) for name, each in held.items()}
    assert {stored.name for stored in place.list("merge/k/")} == {name for name in held if name.startswith("merge/k/")}
    for name in ("a", "merge/k/manifest.json", "never"):
        assert place.read(name) == held.get(name)
        assert place.size(name) == (len(held[name]) if name in held else None)
        scratch.unlink(missing_ok=True)
        assert place.get(name, scratch) == (name in held)
        assert (scratch.read_bytes() if name in held else None) == held.get(name)

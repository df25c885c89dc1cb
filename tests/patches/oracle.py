"""A reader of docs/patch.md that shares no code with the library: plain Python, one element at a time."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow

WIDTHS = {"BOOL": 1, "U8": 1, "F8_E4M3": 1, "I16": 2, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "F64": 8, "I64": 8}
BLOCK = 65536


def read_safetensors(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the header of a file, and the bytes of its tensors."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    entries = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return header, {name: data[begin:end] for name, (begin, end) in entries.items()}


def unpack(patch: Path, base: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each weight file. `base` has the bytes of the base's tensors."""
    header, stored = read_safetensors(patch.read_bytes())
    contents = json.loads(header["__metadata__"]["contents"])
    for file in contents["weights"]:
        (size,) = struct.unpack("<I", stored[f"header:{file}"][:4])
        text = inflate(stored[f"header:{file}"][4:], size)
        made = [struct.pack("<Q", size), text]
        entries = [item for item in json.loads(text).items() if item[0] != "__metadata__"]
        for name, entry in sorted(entries, key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            reference = base.get(contents["references"].get(name, name), b"")
            made.append(read_tensor(stored[f"tensor:{name}"], reference, entry["dtype"], end - begin))
        yield file, b"".join(made)


def read_tensor(record: bytes, reference: bytes, dtype: str, nbytes: int) -> bytes:
    size, at, made = BLOCK * WIDTHS[dtype], 0, []
    blocks = -(-nbytes // size)
    for number, row in enumerate(struct.iter_unpack("<BBIII", record[len(record) - 14 * blocks :])):
        mode, planes, content, first, second = row
        length = min(size, nbytes - number * size)
        old = reference[number * size : number * size + length].ljust(length, b"\0")
        one, two = record[at : at + first], record[at + first : at + first + second]
        if mode == 0:
            made.append(old)
        elif mode in (1, 2):
            where = inflate(one, content)
            changed = [place for place in range(8 * content) if mode == 1 and where[place // 8] >> place % 8 & 1]
            made.append(add_steps(old, changed or follow(where), two, planes, dtype, bias=1))
        elif mode == 4:
            everywhere = list(range(length // WIDTHS[dtype]))
            made.append(add_steps(old, everywhere, two, planes, dtype, bias=0))
        else:
            made.append(join(inflate(two, length), planes))
        at += first + second
    return b"".join(made)


def follow(gaps: bytes) -> list[int]:
    changed, place = [], 0
    for gap in gaps:
        place += gap
        if gap < 255:
            changed.append(place)
            place += 1
    return changed


def add_steps(old: bytes, changed: list[int], steps: bytes, planes: int, dtype: str, bias: int) -> bytes:
    width = WIDTHS[dtype]
    elements = [int.from_bytes(old[at : at + width], "little") for at in range(0, len(old), width)]
    content = inflate(steps, planes * len(changed) or -(-len(changed) // 2))
    packed = join(content, planes) if planes else content
    for number, at in enumerate(changed):
        zigzag = int.from_bytes(packed[number * planes : (number + 1) * planes], "little")
        if not planes:
            zigzag = bias + (packed[number // 2] >> 4 * (number % 2) & 15)
        step = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
        elements[at] = unordered((ordered(elements[at], dtype) + step) % (1 << 8 * width), dtype)
    return b"".join(element.to_bytes(width, "little") for element in elements)


def ordered(bits: int, dtype: str) -> int:
    top = 1 << 8 * WIDTHS[dtype] - 1
    if "F" not in dtype:
        return bits
    return bits + top if bits < top else 2 * top - 1 - bits


def unordered(number: int, dtype: str) -> int:
    top = 1 << 8 * WIDTHS[dtype] - 1
    if "F" not in dtype:
        return number
    return number - top if number >= top else 2 * top - 1 - number


def join(content: bytes, planes: int) -> bytes:
    count = len(content) // planes
    return bytes(content[plane * count + at] for at in range(count) for plane in range(planes))


def inflate(frame: bytes, size: int) -> bytes:
    content: bytes = pyarrow.Codec("zstd").decompress(frame, size, asbytes=True)
    return content

"""Measuring what this machine does in a second. It takes a few seconds, and is kept below the home."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import TensorSpec, plan_layout
from rammerge.costs.model import Speeds
from rammerge.engine.options import Compile, MergeOptions
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.numerics.dtypes import DTYPES
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
from rammerge.system.atomic import write_json
from rammerge.system.home import home

# Raise this when what is measured changes.
_VERSION = 1
_AGENTS = 3
_ELEMENTS = 1 << 25
_CHUNK = 1 << 24
_COMPILE: Compile = "always"


def calibrated() -> Speeds:
    """Return what this machine does, as it was measured the first time, on the disk of the home.

    Raises:
        OSError: the disk is full or failed.
    """
    file = home() / "calibration" / f"{os.uname().nodename}-{len(os.sched_getaffinity(0))}-{_VERSION}.json"
    with suppress(OSError, ValueError, TypeError):
        return Speeds(**json.loads(file.read_text(encoding="utf-8")))
    speeds = _measure(file.parent)
    write_json(file, asdict(speeds))
    return speeds


def _measure(directory: Path) -> Speeds:
    directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=directory, prefix=".calibrating-"))
    try:
        content = _write_models(scratch)
        family = Family.open(scratch / "base", {f"agent{at}": scratch / f"agent{at}" for at in range(_AGENTS)})
        inputs, options = len(content) * (1 + _AGENTS), MergeOptions("bfloat16", compile=_COMPILE)
        list(family.digests)  # hashing the inputs is a stage of its own
        merge_family(family, resolve("ram"), scratch / "first", options)  # compiles
        measure_overlap(family, options=options)
        return Speeds(
            cores=len(os.sched_getaffinity(0)),
            read=_read_speed(scratch),
            write=_write_speed(scratch / "written", content),
            hashed=len(content) / _processor(lambda: hashlib.sha256(content)),
            merged=inputs / _processor(lambda: merge_family(family, resolve("ram"), scratch / "out", options)),
            counted=inputs / _processor(lambda: measure_overlap(family, options=options)),
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_models(scratch: Path) -> memoryview:
    """Write a base and agents of one tensor, and return the content of one."""
    spec = TensorSpec(DTYPES["bfloat16"], (1 << 15, _ELEMENTS >> 15))
    (shard,) = plan_layout({"weight": spec}, 2 * spec.nbytes).shards
    drawn = np.random.default_rng(0)
    content = memoryview(b"")
    for name in ("base", *(f"agent{at}" for at in range(_AGENTS))):
        values = drawn.integers(0x3C00, 0x3F00, _ELEMENTS, dtype=np.uint16)  # finite numbers below one
        content = memoryview(shard.header + values.tobytes())
        (scratch / name).mkdir()
        _write_speed(scratch / name / shard.file, content)
        (scratch / name / "config.json").write_text(json.dumps({"model_type": "calibration"}), encoding="utf-8")
    return content


def _write_speed(file: Path, content: memoryview) -> float:
    began = time.perf_counter()
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    return len(content) / (time.perf_counter() - began)


def _read_speed(scratch: Path) -> float:
    """Return how fast files are read that are no longer in the page cache, as far as the file system lets them go."""
    memory, files = memoryview(bytearray(_CHUNK)), sorted(scratch.glob("*/*.safetensors"))
    read, seconds = 0, 0.0
    for file in files:
        with file.open("rb", buffering=0) as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            while count := opened.readinto(memory):
                read += count
            seconds += time.perf_counter() - began
    return read / seconds


def _processor(work: Callable[[], Any]) -> float:
    """Return the processor time that work takes in this process, in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began

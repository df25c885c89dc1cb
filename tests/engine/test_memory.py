"""Contract: peak resident memory is what the forecast said, whatever the size of a tensor.

A limit that is too small is refused, and the message names one that is enough.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine import memory
from rammerge.engine.forecast import forecast
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import resolve
from tests.engine.models import Models, sparse_family, write_family

# How much the imports alone take depends on torch's build: twice as much with CUDA's libraries as without.
MERGE = """
import os, sys
from pathlib import Path
from rammerge.checkpoints.family import Family
from rammerge.engine.forecast import forecast
from rammerge.engine.options import MergeOptions
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
import torch
root = Path(sys.argv[1])
family = Family.open(root / "base", {name: root / name for name in ("a", "b")})
resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
limit = resident + int(sys.argv[2])
method = resolve(sys.argv[3])
options = MergeOptions("bfloat16", memory=limit, compile="never", threads=2)
expected = forecast(family, method.bind(family.agents), options).memory
merge_family(family, method, root / "out", options)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(limit, expected, int(peak.split()[1]) * 1024)
"""


def forecast_ram(models: Models, options: MergeOptions) -> int:
    """Return the memory that a merge by RAM is said to take."""
    family = Family.open(*models)
    return forecast(family, resolve("ram").bind(family.agents), options).memory


def write_sparse_file(directory: Path, elements: int, first: float) -> None:
    """Write a checkpoint of one large tensor, zero but for its first element, in next to no disk space."""
    directory.mkdir()
    entry = {"dtype": "BF16", "shape": [elements // 64, 64], "data_offsets": [0, elements * 2]}
    header = json.dumps({"embed.weight": entry}).encode()
    header += b" " * (-len(header) % 8)
    value = torch.tensor([first], dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + value)
        file.truncate(8 + len(header) + elements * 2)
    (directory / "config.json").write_text('{"model_type": "anything"}')


@pytest.mark.parametrize("method", ["ram", "ties"])
def test_the_forecast_holds_for_a_tensor_larger_than_the_limit(tmp_path: Path, method: str) -> None:
    elements = 1 << 26
    for name, first in (("base", 0.0), ("a", 1.0), ("b", 2.0)):
        write_sparse_file(tmp_path / name, elements, first)
    room = 170 << 20  # three inputs and an output of 128 MiB each, and several float32 copies of one, would not fit
    process = subprocess.run(
        [sys.executable, "-c", MERGE, str(tmp_path), str(room), method],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    limit, expected, peak = map(int, process.stdout.split())
    assert expected <= limit
    assert peak <= limit
    assert abs(peak - expected) <= 0.2 * expected


def test_too_small_a_limit_names_the_one_that_would_do(tmp_path: Path) -> None:
    models = write_family(tmp_path, *sparse_family({"w": (100, 100)}, [0.1, 0.2]))
    with pytest.raises(InputError, match=r"--memory 1MiB is too little: this merge needs \d+MiB") as refused:
        forecast_ram(models, MergeOptions(memory=1 << 20))
    enough = int(str(refused.value).split("needs ")[1].removesuffix("MiB"))
    assert forecast_ram(models, MergeOptions(memory=(enough + 8) << 20)) <= (enough + 8) << 20


def test_a_large_host_process_may_merge_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = write_family(tmp_path, *sparse_family({"w": (100, 100)}, [0.1, 0.2]))
    monkeypatch.setattr(memory, "resident_bytes", lambda: 3 << 30)
    assert 3 << 30 < forecast_ram(models, MergeOptions()) <= (3 << 30) + (512 << 20)
    with pytest.raises(InputError, match="--memory 2048MiB is too little"):  # a limit that the user set still holds
        forecast_ram(models, MergeOptions(memory=2 << 30))


def test_many_processors_take_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = write_family(tmp_path, *sparse_family({"w": (1000, 1000)}, [0.1, 0.2]))
    monkeypatch.setattr(memory, "resident_bytes", lambda: 300 << 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(256))
    assert forecast_ram(models, MergeOptions()) <= 1 << 30
    with pytest.raises(InputError, match="too little"):
        forecast_ram(models, MergeOptions(memory=1 << 30, threads=256))


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    models = write_family(tmp_path, *sparse_family({"w": (10,)}, [0.5]))
    with pytest.raises(InputError, match=f"device '{device}'"):
        forecast_ram(models, MergeOptions(device=device))

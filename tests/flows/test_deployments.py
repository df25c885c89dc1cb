"""Contract of prefect.yaml and deploy/: Prefect takes them, and what they name of this repository exists."""

import importlib
import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel
from prefect.server.schemas.core import WorkPool
from prefect.utilities.importtools import load_script_as_module
from prefect.utilities.schema_tools.validation import validate

from flows.run.sending import FLOW

ROOT = Path(__file__).parents[2]
PREFECT = PrefectYamlModel.model_validate(yaml.safe_load((ROOT / "prefect.yaml").read_text()))
INSTRUCTIONS = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text()).splitlines()


@pytest.mark.parametrize("deployment", PREFECT.deployments, ids=lambda each: str(each.name))
def test_a_deployment_starts_a_flow_with_parameters_that_it_has(deployment: DeploymentConfig) -> None:
    file, _, name = str(deployment.entrypoint).partition(":")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    flow = getattr(module, name)
    assert isinstance(flow, Flow)
    assert deployment.parameters.keys() <= inspect.signature(flow.fn).parameters.keys()
    pool = deployment.work_pool
    assert pool is not None and pool.work_queue_name and pool.name in {"cpu", "gpu"}
    assert pool.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
    if flow.name == FLOW:
        assert deployment.name == pool.name, "runs ask for the deployment that is called as the pool"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script_as_module(str(ROOT / "deploy" / "job_template.py"))


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_prefect_takes_the_job_template_of_a_pool(kind: str, pool: str, script: ModuleType) -> None:
    template: dict[str, Any] = script.job_template(kind, pool)
    WorkPool(name=pool, type=kind, base_job_template=template)
    variables = template["variables"]
    chosen = {
        name: each["default"] for name, each in variables["properties"].items() if each.get("default") is not None
    }
    assert validate(chosen, variables) == []
    assert chosen["image"] == "rammerge"
    job = str(template["job_configuration"]) + str(chosen)
    assert "/home/rammerge" in job
    assert ("nvidia" in job.lower()) is (pool == "gpu")


def test_the_image_copies_what_exists_and_all_that_a_checkout_needs() -> None:
    copied = {source for line in INSTRUCTIONS if line.startswith("COPY ") for source in shlex.split(line)[1:-1]}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    packages = {"rammerge", "evaluation", "tasks", "flows"}
    assert {*packages, "examples", "deploy", "prefect.yaml", "pyproject.toml", "constraints.txt"} <= copied
    assert {line.split()[0] for line in INSTRUCTIONS if line and not line.startswith("#")} == {
        *("FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV")
    }


def test_the_image_installs_as_the_readme_does() -> None:
    (readme,) = re.findall(r"^(python3 -m venv .* -e \.) && ", (ROOT / "README.md").read_text(), re.MULTILINE)
    (image,) = (line.removeprefix("RUN ") for line in INSTRUCTIONS if "pip install" in line)
    assert image.replace('".[servers]"', ".") == readme


def test_the_image_is_the_one_of_the_compose_file() -> None:
    (home,) = {
        word.partition("=")[2] for line in INSTRUCTIONS for word in line.split() if word.startswith("RAMMERGE_HOME=")
    }
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert compose["x-client"]["RAMMERGE_HOME"] == home
    docker = yaml.safe_load((ROOT / "deploy" / "docker.yaml").read_text())
    volume = f"{compose['name']}_home:{home}"
    assert all(pool["variables"]["volumes"] == [volume] for pool in docker.values())

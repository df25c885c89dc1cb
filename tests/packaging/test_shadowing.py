"""Contract: a user may have directories called flows, tasks or evaluation, with or without __init__.py.

Where such a directory lies in the working directory, both ways to start the program work. Where it comes before
rammerge's own package on the import path, one sentence names it.
"""

from pathlib import Path

import pytest

from tests.fixtures.installed import Installation

NAMES = ("flows", "tasks", "evaluation")


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installation(request: pytest.FixtureRequest) -> Installation:
    found: Installation = request.getfixturevalue("installed" if request.param == "wheel" else "editable")
    return found


def own(directory: Path, *names: str, package: bool = True) -> Path:
    """Give the user packages of those names, or directories of scripts that are no packages."""
    for name in names:
        (directory / name).mkdir()
        (directory / name / ("__init__.py" if package else "deploy.py")).write_text(f"print('this is my own {name}')\n")
    return directory


@pytest.mark.parametrize("package", [True, False])
def test_the_program_works_where_the_user_has_all_three(
    installation: Installation, package: bool, tmp_path: Path
) -> None:
    own(tmp_path, *NAMES, package=package)
    for command in ([installation.rammerge], [installation.python, "-m", "rammerge"]):
        done = installation.run(*command, "methods", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "my own" not in done.stdout


def test_commands_that_reach_every_package_work_there(installation: Installation, tmp_path: Path) -> None:
    own(tmp_path, *NAMES)
    home = {"RAMMERGE_HOME": str(tmp_path / "home")}
    done = installation.run(installation.python, "-m", "rammerge", "check", "absent.yaml", cwd=tmp_path, **home)
    assert done.returncode == 2
    assert done.stderr == "error: absent.yaml: no such recipe file; give the path of a YAML file\n"


@pytest.mark.parametrize("name", NAMES)
def test_on_the_import_path_it_is_named(installation: Installation, name: str, tmp_path: Path) -> None:
    own(tmp_path, name)
    for command in ([installation.rammerge], [installation.python, "-m", "rammerge"]):
        done = installation.run(*command, "methods", cwd=Path("/"), PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {tmp_path / name} hides rammerge's own package '{name}' (")
        assert done.stderr.endswith(f"take {tmp_path} off PYTHONPATH\n")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", [True, False])
@pytest.mark.parametrize("name", ["tasks", "evaluation"])
def test_importing_the_flows_works_or_names_it(
    installation: Installation, name: str, package: bool, tmp_path: Path
) -> None:
    own(tmp_path, name, package=package)
    done = installation.run(installation.python, "-c", "import flows; print(flows.__file__)", cwd=tmp_path)
    if done.returncode == 0:  # Python prefers a package anywhere on the path to a directory that is none
        assert not package
        assert str(tmp_path) not in done.stdout
    else:
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"ImportError: {tmp_path / name} hides rammerge's own package '{name}'"), done.stderr

"""Contract of a recipe as a parameter: by path, inline, by git reference or by URL; the last two name their content.

Mistakes are one sentence, and what Prefect's form shows takes what the flows take.
"""

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.schema_tools.validation import validate

from flows.check import check
from flows.run.given import read
from rammerge.errors import InputError, RammergeError

RECIPE = {"name": "given", "base": "/base", "agents": {"a": "/a"}, "merges": ["ram"], "evaluation": "none"}
COMMIT = "0123456789" * 4


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the address of a git repository with a recipe and a suite beside it, and a commit."""
    root = tmp_path_factory.mktemp("repository")
    (root / "recipes").mkdir()
    (root / "recipes" / "given.yaml").write_text(yaml.safe_dump({**RECIPE, "base": "base"}))
    (root / "recipes" / "out.yaml").symlink_to("/etc/hostname")
    (root / "recipes" / "base").mkdir()
    (root / "recipes" / "base" / "config.json").write_text("{}")

    def git(*words: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
        return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "a recipe")
    commit = git("rev-parse", "HEAD").strip()
    (root / "recipes" / "given.yaml").write_text("name: later\n")
    git("commit", "--quiet", "--all", "--message", "another one")
    return f"git+file://{root}", commit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Yield the address of a recipe on loopback, and its SHA-256."""
    root = tmp_path_factory.mktemp("served")
    content = yaml.safe_dump(RECIPE).encode()
    (root / "given.yaml").write_bytes(content)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/given.yaml", hashlib.sha256(content).hexdigest()
    serving.shutdown()
    serving.server_close()
    thread.join()


def test_a_recipe_in_a_commit_is_read_with_what_lies_beside_it(repository: tuple[str, str]) -> None:
    address, commit = repository
    recipe = read(f"{address}@{commit}#recipes/given.yaml")
    assert recipe.name == "given", "not what the branch has now"
    assert Path(recipe.resolve(recipe.base)).is_dir() and not (recipe.directory.parent / ".git").exists()


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("{address}@main#recipes/given.yaml", "is not pinned; give git"),
        ("{address}@{commit}", "is not pinned; give git"),
        ("git+http://127.0.0.1/x@{commit}#given.yaml", "is not pinned; give git"),
        ("{address}@{commit}#recipes/nowhere.yaml", "has no file recipes/nowhere.yaml in the commit"),
        ("{address}@{commit}#../given.yaml", "leads out of the repository"),
        ("{address}@{commit}#recipes/out.yaml", "out.yaml:1: not a recipe"),
    ],
)
def test_a_git_reference_that_cannot_be_read_is_one_sentence(
    reference: str, words: str, repository: tuple[str, str]
) -> None:
    address, commit = repository
    with pytest.raises(InputError, match=words):
        read(reference.format(address=address, commit=commit))


def test_a_users_own_ssh_is_used_and_never_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\nexit 1\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{ssh} -i key")
    with pytest.raises(RammergeError, match="of the recipe's repository failed"):
        read(f"git+ssh://nowhere.invalid/x@{COMMIT}#recipe.yaml")
    assert (tmp_path / "said").read_text().startswith("-i key -o BatchMode=yes ")


def test_a_commit_that_the_repository_does_not_have_is_one_sentence(repository: tuple[str, str]) -> None:
    with pytest.raises(RammergeError, match="of the recipe's repository failed"):
        read(f"{repository[0]}@{COMMIT}#recipes/given.yaml")


def test_a_recipe_at_a_url_is_read_if_its_digest_is_the_one_given(server: tuple[str, str]) -> None:
    url, digest = server
    assert read(f"{url}#sha256={digest}").name == "given"
    with pytest.raises(InputError, match="is not pinned; add #sha256="):
        read(url)
    with pytest.raises(InputError, match=f"has the SHA-256 {digest}, not 0000"):
        read(f"{url}#sha256={'0' * 64}")
    with pytest.raises(RammergeError, match=r"cannot be fetched .*404"):
        read(f"{url}s#sha256={'1' * 64}")


def test_an_inline_recipe_is_one_of_the_directory_and_its_mistakes_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = read({**RECIPE, "base": "mein Modell ü", "registry": {"model": None}})  # a form sends empty fields as null
    assert recipe.resolve(recipe.base) == str(tmp_path / "mein Modell ü")
    assert recipe.digest == read({**RECIPE, "base": "mein Modell ü"}).digest
    with pytest.raises(InputError, match=r"^inline recipe:1: merges\[0\].methd: unknown key \(did you mean 'method'"):
        read({**RECIPE, "merges": [{"methd": "ram"}]})


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ("examples/zoo.yaml", True),
        (RECIPE, True),
        ({**RECIPE, "merges": [{"method": "ram_plus", "preset": "paper"}]}, True),
        ({**RECIPE, "merges": [{"method": "ramm"}]}, False),
        ({"name": "given"}, False),
        (1, False),
    ],
)
def test_the_form_takes_what_the_flow_takes(given: Any, valid: bool) -> None:
    schema = check.parameters.model_dump()
    assert (validate({"recipe": given}, schema) == []) is valid


def test_the_form_has_four_tabs_and_offers_the_methods() -> None:
    schema = check.parameters.model_dump()
    tabs = schema["properties"]["recipe"]["anyOf"]
    titles = [tab.get("title") or schema["definitions"][tab["$ref"].rpartition("/")[2]]["title"] for tab in tabs]
    assert titles == ["By path", "Inline", "By git reference", "By URL"]
    method = schema["definitions"]["InlineMerge"]["properties"]["method"]
    assert {"average", "ram", "ties"} <= set(method["enum"])


@pytest.mark.usefixtures("prefect_api")
def test_a_check_that_refuses_fails_with_its_sentence_and_shows_it() -> None:
    from prefect.artifacts import Artifact

    state: Any = check(RECIPE, return_state=True)
    shown: Any = Artifact.get("given-check")
    assert state.is_failed() and "inline recipe:1: base: /base does not exist" in state.message
    assert shown.data == f"- {state.message}"

"""Contract: no failure tells a secret, wherever it was: in a variable, an address, a recipe, or a server's answer.

Every secret that users are known to have is planted as a canary; the servers repeat what they are sent. With `--debug`
the whole traceback is shown, so a cause tells as much as the sentence.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from evaluation.backends.served import Endpoint, Served
from flows.cli import program
from flows.servers.api import require_prefect
from rammerge.checkpoints.hub import download
from rammerge.errors import RammergeError
from rammerge.recipe import load
from tasks.search.study import open_database
from tests.fixtures.addresses import nobody
from tests.fixtures.canaries import IN_ADDRESS, VARIABLES, echoing, leaking_files, leaks
from tests.fixtures.pipeline import World

STATUSES = (401, 403, 404, 500, 200)


@pytest.fixture(autouse=True, scope="module")
def mlflow_is_whole() -> None:
    """Import all of MLflow's store: an import that a bad address breaks cannot be made again in this process."""
    import mlflow.store.db.utils  # noqa: F401


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture
def shown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rammerge_home: Path
) -> Callable[[Callable[[], object]], str]:
    """Return a function that has the command line report what fails, and returns all that a person can see of it."""

    def report(fail: Callable[[], object]) -> str:
        monkeypatch.setattr(program, "app", lambda *_, **__: fail())
        assert program._run(["check"], debug=True) != 0
        captured = capfd.readouterr()
        assert "error: " in captured.err
        assert leaking_files(rammerge_home) == []
        return captured.out + captured.err

    return report


def _releases(address: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    def ask() -> object:
        from tasks.records.registry import releases

        return releases("tiny")

    return ask


@pytest.mark.parametrize("status", STATUSES)
def test_mlflow_that_refuses(
    status: int, shown: Callable[[Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with echoing(status) as place:
        assert leaks(shown(_releases(f"http://u:{IN_ADDRESS}@{place}", monkeypatch))) == []
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
        assert leaks(shown(_releases(f"http://{place}", monkeypatch))) == []


@pytest.mark.parametrize(
    "address",
    [
        f"http://u:{IN_ADDRESS}@{{nobody}}",
        f"postgresql://u:{IN_ADDRESS}@{{nobody}}/db",
        f"postgresql+psycopg://u:{IN_ADDRESS}@{{nobody}}/db?password=canary-query",
        f"mysql://u:{IN_ADDRESS}@{{nobody}}/db",
        f"weird://u:{IN_ADDRESS}@127.0.0.1/db",
        f"http://u:{IN_ADDRESS}@127.0.0.1:port",
        "sqlite:///{file}?password=canary-query",
        "sqlite:////no/such/place/x.db?secret=canary-query",
    ],
)
def test_databases_and_servers_that_cannot_be_used(
    address: str, shown: Callable[[Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "no.db").write_text("this is no database")
    with nobody() as place:
        address = address.format(nobody=place, file=tmp_path / "no.db")
        assert leaks(shown(_releases(address, monkeypatch))) == []
        if not address.startswith("http"):
            assert leaks(shown(lambda: open_database(address))) == []


@pytest.mark.parametrize("status", [*STATUSES[:4], None])
def test_prefect_that_refuses(
    status: int | None, shown: Callable[[Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

    with echoing(status) if status else nobody() as place:
        address = f"http://u:{IN_ADDRESS}@{place}/api"
        monkeypatch.setenv("PREFECT_API_URL", address)
        for settings in (
            {PREFECT_API_KEY: VARIABLES["PREFECT_API_KEY"]},
            {PREFECT_API_AUTH_STRING: VARIABLES["PREFECT_API_AUTH_STRING"]},
        ):
            with temporary_settings({PREFECT_API_URL: address, **settings}):
                assert leaks(shown(require_prefect)) == []


@pytest.mark.parametrize("status", STATUSES)
def test_a_hub_and_a_models_server_that_refuse(
    status: int, shown: Callable[[Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with echoing(status) as place:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://u:{IN_ADDRESS}@{place}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        assert leaks(shown(lambda: download("org/model", None, lambda _: None))) == []
        served = Served(Endpoint(f"http://{place}/v1", "judge", retries=0, timeout=5))
        assert leaks(shown(lambda: served.generate("completions", [{"prompt": "1 + 1 ="}]))) == []


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("a source", "base: https://u:canary-password@hub.example/org/model"),
        ("a comment", "base: base  # hf_canaryABCDEFGHIJKLMNOPQRST"),
        ("an address", "search: {database: 'postgresql://u:canary-pw@host/trials'}"),
        ("a key", "key: sk-canary-ABCDEFGHIJKLMNOPQ"),
        ("a key of AWS", "base: AKIACANARY1234567890"),
    ],
)
def test_a_recipe_with_a_secret_is_refused_and_the_line_is_named(
    place: str, text: str, tmp_path: Path, shown: Callable[[Callable[[], object]], str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: {place.split()[1]}\n{text}\n")
    told = shown(lambda: load(recipe))
    assert f"error: {recipe}:2: holds " in told and "HF_TOKEN" in told
    assert leaks(told.lower()) == []


def test_a_recipe_without_secrets_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.recipe.write_text(
        world.recipe.read_text() + "# see git@host:org/repo, https://host/a@b and models:/x@champion\n"
    )
    assert load(world.recipe).name == "tiny"


def test_an_error_that_led_to_another_tells_nothing_either() -> None:
    from rammerge.system.redaction import without_secrets

    @without_secrets
    def fail() -> None:
        try:
            raise OSError("no route to http://u:canary-cause@host")
        except OSError as error:
            raise RammergeError("the server does not answer") from error

    with pytest.raises(RammergeError, match="does not answer") as raised:
        fail()
    assert raised.value.__cause__ is None and raised.value.__suppress_context__

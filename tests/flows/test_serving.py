"""Contract of what `rammerge serve` refuses before it starts anything: each time one sentence with the fix."""

import pytest

from flows.servers.databases import Databases
from flows.servers.serving import require_passwords
from rammerge.errors import InputError
from rammerge.system.servers import address_of

PASSWORDS = ("PREFECT_SERVER_API_AUTH_STRING", "MLFLOW_AUTH_ADMIN_PASSWORD")


@pytest.fixture(autouse=True)
def no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PASSWORDS, "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "given", "sentence"),
    [
        ("0.0.0.0", ("", ""), f"--host 0.0.0.0 lets other machines in.* set {' and '.join(PASSWORDS)}"),
        ("127.0.0.1", ("a:b", ""), f"only {PASSWORDS[0]} is set.* set {PASSWORDS[1]}"),
        ("0.0.0.0", ("", "long enough for it"), f"set {PASSWORDS[0]}"),
        ("0.0.0.0", ("no-name", "long enough for it"), "is not NAME:PASSWORD"),
        ("0.0.0.0", ("a:b", "short"), "use 12 characters or more"),
    ],
)
def test_others_are_let_in_with_two_passwords_only(
    host: str, given: tuple[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(PASSWORDS, given, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=sentence):
        require_passwords(host)


def test_loopback_needs_none_and_takes_both(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not require_passwords("127.0.0.1")
    for name, value in zip(PASSWORDS, ("a:b", "long enough for it"), strict=True):
        monkeypatch.setenv(name, value)
    assert require_passwords("127.0.0.1")


@pytest.mark.parametrize(
    ("option", "address", "sentence"),
    [
        ("mlflow", "postgresql+psycopg://a:hidden@c/d", "--mlflow-db has a password in it.* set PGPASSWORD"),
        ("prefect", "postgresql://a@c/d", r"--prefect-db .* begins with postgresql\+asyncpg://"),
        ("users", "nonsense", "--users-db nonsense: write an address"),
    ],
)
def test_an_address_without_sense_or_with_a_password_is_refused(option: str, address: str, sentence: str) -> None:
    given = {"prefect": None, "mlflow": None, "users": None, option: address}
    with pytest.raises(InputError, match=sentence) as refusal:
        Databases.settle(**given)
    assert "hidden" not in str(refusal.value)


def test_a_password_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "postgresql+psycopg://a:hidden@c/d"
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", address)
    databases = Databases.settle(None, None, None)
    assert databases.mlflow == address and databases.named == ()


def test_a_server_on_all_interfaces_is_reached_on_loopback() -> None:
    assert address_of("0.0.0.0", 1) == address_of("::", 1) == "http://127.0.0.1:1"
    assert address_of("::1", 2) == "http://[::1]:2" and address_of("host", 3) == "http://host:3"

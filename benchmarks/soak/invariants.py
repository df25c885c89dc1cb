"""What must hold after every run, read from the files and the databases themselves, and by no code of rammerge."""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse


@dataclass(frozen=True)
class Registry:
    """What MLflow's database says: one registered model, and the finished runs of its experiment.

    Attributes:
        versions: by number, where its files are.
        digests: by number, of the content.
        aliases: the version of each, a move that has begun being made.
        runs: finished parents, by id, with the key of what they record.
        open: runs that have not ended.
        orphans: versions whose run has no record any more.
    """

    versions: dict[int, Path] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    open: int = 0
    orphans: tuple[int, ...] = ()

    @classmethod
    def read(cls, database: Path, name: str) -> "Registry":
        """Read the registered model and the experiment `name`, which may not exist yet."""
        if not database.exists():
            return cls()
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:

            def rows(statement: str) -> list[tuple[Any, ...]]:
                return connection.execute(statement, {"name": name}).fetchall()

            versions = rows("SELECT version, source FROM model_versions WHERE name = :name AND current_stage = 'None'")
            digests = rows(
                "SELECT version, value FROM model_version_tags WHERE name = :name AND key = 'rammerge.digest'"
            )
            aliases = dict(rows("SELECT alias, version FROM registered_model_aliases WHERE name = :name"))
            moves = rows("SELECT value FROM registered_model_tags WHERE name = :name AND key = 'rammerge.moving'")
            for (move,) in moves:
                aliases |= json.loads(move)["aliases"]
            runs = rows(
                "SELECT r.run_uuid, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
                "JOIN experiments e ON e.experiment_id = r.experiment_id WHERE e.name = :name "
                "AND t.key = 'rammerge.pipeline' AND r.status = 'FINISHED' AND r.lifecycle_stage = 'active'"
            )
            orphans = rows(
                "SELECT v.version FROM model_versions v LEFT JOIN runs r ON r.run_uuid = v.run_id "
                "AND r.lifecycle_stage = 'active' WHERE v.name = :name AND v.current_stage = 'None' AND v.run_id != '' "
                "AND r.run_uuid IS NULL"
            )
            ((unfinished,),) = rows(
                "SELECT count(*) FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active' AND :name != ''"
            )
        return cls(
            versions={number: _local(source) for number, source in versions},
            digests={number: digest for number, digest in digests if number in dict(versions)},
            aliases={alias: int(version) for alias, version in aliases.items() if version is not None},
            runs=dict(runs),
            open=unfinished,
            orphans=tuple(version for (version,) in orphans),
        )


def broken(home: Path, now: Registry, before: Registry, *, pruned: bool) -> Iterator[str]:
    """Yield what does not hold now, one sentence each.

    Args:
        home: where everything is.
        now: what MLflow says now.
        before: what it said after the run before.
        pruned: whether versions and the records of old runs may have gone since then.
    """
    yield from _broken_entries(home / "store")
    for number, directory in sorted(now.versions.items()):
        yield from _broken_model(f"version {number}", directory)
    for digest, times in Counter(now.digests.values()).items():
        if times > 1:
            yield f"the content {digest} is registered {times} times"
    for key, times in Counter(now.runs.values()).items():
        if times > 1:
            yield f"{key} is recorded {times} times in MLflow"
    for alias, number in now.aliases.items():
        if number not in now.versions:
            yield f"{alias} is version {number}, which does not exist"
    lost = before.versions.keys() - now.versions.keys()
    if lost and not pruned:
        yield f"the versions {sorted(lost)} are lost"
    gone = before.runs.keys() - now.runs.keys()
    if gone and not pruned:
        yield f"the runs {sorted(gone)} are lost"
    for number in now.orphans:
        yield f"the run of version {number} is lost"
    if "champion" in before.aliases and "champion" not in now.aliases:
        yield "there is no champion any more"


def unfounded(home: Path, name: str, now: Registry, before: Registry, margin: float) -> Iterator[str]:
    """Yield what is wrong with a change of the champion, after a run that came to its end."""
    champion, last = now.aliases.get("champion"), before.aliases.get("champion")
    if champion == last:
        return
    outcome = json.loads((home / "runs" / f"{name}.json").read_text("utf-8"))
    if not outcome["passed"] or outcome["registered"] != [name, champion]:
        yield f"version {champion} is champion, but the run chose {outcome['registered']}, passed: {outcome['passed']}"
    if last is not None and now.aliases.get("previous") != last:
        yield f"version {last} was champion, but previous is {now.aliases.get('previous')}"
    board = json.loads(Path(outcome["leaderboard_file"]).read_text("utf-8"))
    rows = {row["name"]: row["average"]["test"]["value"] for row in board["rows"]}
    rival = (board.get("champion") or {}).get("row")
    if rival and rows[outcome["selected"]] < rows[rival] - margin:
        yield f"version {champion} scores {rows[outcome['selected']]}, the champion before it {rows[rival]}"


def unfinished(database: Path) -> int:
    """Return how many runs Prefect believes to be going on."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM flow_run WHERE state_type = 'RUNNING'").fetchall()
    return int(count)


def _broken_entries(store: Path) -> Iterator[str]:
    for entry in sorted(store.glob("[!.]*/[!.]*")):
        try:
            files = json.loads((entry / ".manifest").read_text("utf-8"))["files"]
        except (OSError, ValueError, KeyError) as error:
            yield f"{entry} has no manifest: {error}"
            continue
        yield from _differing(entry, {name: file["sha256"] for name, file in files.items()}, ".manifest")


def _broken_model(who: str, directory: Path) -> Iterator[str]:
    model = directory / "model"
    if not (directory / "MLmodel").is_file() or not (model / "rammerge.json").is_file():
        yield f"{who} has no MLmodel or no rammerge.json in {directory}"
        return
    files = json.loads((model / "rammerge.json").read_text("utf-8"))["files"]
    yield from _differing(model, {name: file["sha256"] for name, file in files.items()}, "rammerge.json")


def _differing(directory: Path, known: dict[str, str], list_name: str) -> Iterator[str]:
    found = {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name != list_name
    }
    for name in sorted(name for name in found.keys() | known.keys() if found.get(name) != known.get(name)):
        yield f"{directory / name} differs from what {list_name} says"


def _local(source: str) -> Path:
    return Path(unquote(urlparse(source).path))

"""Register the selected variant, and make it the champion: the pipeline's last steps."""

import json
from pathlib import Path
from typing import Self

from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.records import pages, promotion, registry, tracking
from tasks.records.history import Reason
from tasks.records.log import TAG_PREFECT_RUN
from tasks.records.record import NOT_EVALUATED, Record
from tasks.records.tracking import Tracked
from tasks.records.trouble import explained
from tasks.runtime.result import Result
from tasks.runtime.retries import TRACKING_RETRIES
from tasks.runtime.step import step
from tasks.steps.packing import in_files


class Registered(Result):
    """The version that holds the selected variant.

    Attributes:
        name: registered model.
        version: MLflow's number.
        content: digest of the variant's files.
    """

    name: str
    version: int
    content: str

    @property
    def identity(self) -> list[str | int]:
        """MLflow identifies versions."""
        return [self.name, self.version]

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `register` wrote."""
        release = json.loads((entry.path / "release.json").read_text("utf-8"))
        return cls(
            path=release["path"],
            digest=entry.digest,
            name=release["name"],
            version=release["version"],
            content=release["tags"][registry.TAG_DIGEST],
        )

    def holds(self) -> bool:
        """Return whether MLflow still has the version, with its files."""
        found = registry.find_release(self.name, self.content)
        return found is not None and found.version == self.version

    def found(self) -> Self:
        """Return the version with its present place, which is a different one in a home that was restored elsewhere."""
        release = registry.find_release(self.name, self.content)
        return self if release is None else self.model_copy(update={"path": Path(release.path)})


@step(
    "register",
    version=2,
    run_name="register {record.recipe.model_name}",
    result=Registered,
    ignore=["flow_run"],
    retries=TRACKING_RETRIES,
)
@explained()
def register(out: Path, record: Record, runs: Tracked, flow_run: str) -> None:
    """Register the selected variant as the challenger, by reference, and lead to it; write `release.json`."""
    decision = record.judged.decision if record.judged else None
    refusals = " ".join(decision.refusals) if decision else ""
    run = pages.run_fragment(runs.experiment, runs.run_id)
    links = f"[The run in MLflow]({run}), [in Prefect]({pages.flow_run_page(flow_run)})"
    with in_files(record.selected) as selected:
        release = registry.register(
            record.recipe.model_name,
            selected.path,
            digest=record.selected.content,
            run_id=runs.children[record.variant],
            description=f"{decision.markdown if decision else NOT_EVALUATED}\n{links}\n",
            tags={
                **record.tags,
                registry.TAG_RUN: runs.run_id,
                registry.TAG_NOTIFY: json.dumps([each.model_dump(mode="json") for each in record.recipe.notify]),
                registry.TAG_VARIANT: record.variant,
                registry.TAG_WEIGHTS: record.selected.digest,
                registry.TAG_GATES: f"{record.verdict}: {refusals}" if refusals else record.verdict,
                **({registry.TAG_PUSH: record.recipe.registry.push} if record.recipe.registry.push else {}),
                TAG_PREFECT_RUN: pages.flow_run_page(flow_run),
            },
        )
    tracking.link_version(runs, release.name, release.version)
    write_json(out / "release.json", release.model_dump(mode="json"))


def describe(release: Registered) -> str:
    """Return what a version is that a run registers and does not promote: a new challenger, or the present champion."""
    champion = registry.find_champion(release.name)
    serves = champion is not None and champion.version == release.version
    state = "is champion already, and this run changes nothing" if serves else "is registered and not promoted"
    return f"{release.name} version {release.version} {state}"


class Promoted(Result):
    """Who is champion of the registered model `name`, and why."""

    name: str
    champion: int | None
    sentence: str
    changed: bool

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `promote` wrote."""
        moved = json.loads((entry.path / "promotion.json").read_text("utf-8"))
        facts = {name: moved[name] for name in ("name", "champion", "sentence", "changed")}
        return cls(path=entry.path, digest=entry.digest, **facts)

    def holds(self) -> bool:
        """Return whether the champion is who it was when the step ended. A person may have changed it since."""
        champion = registry.champion_among(registry.releases(self.name))
        return champion is not None and champion.version == self.champion


@step(
    "promote",
    version=1,
    run_name="promote {name}",
    result=Promoted,
    ignore=["instead_of", "flow_run"],
    retries=TRACKING_RETRIES,
)
@explained()
def promote(out: Path, name: str, release: Registered, instead_of: int | None, flow_run: str) -> None:
    """Make the version the champion instead of the version `instead_of`; write `promotion.json`.

    Nothing changes if a person rolled the version back, or if the champion has changed in the meantime.
    """
    reason = Reason(because=f"every gate passed in {pages.flow_run_page(flow_run)}")
    moved = promotion.promote(name, release.version, reason=reason, instead_of=instead_of)
    write_json(out / "promotion.json", moved.model_dump(mode="json"))

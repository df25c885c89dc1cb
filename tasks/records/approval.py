"""Asking a person whether a version may serve, and their answer.

The question is a tag of the version, so that it outlives the run that asks, and whoever reaches MLflow can answer it.
The answer goes the way of every promotion.
"""

import time
from collections.abc import Iterator

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rammerge.errors import InputError
from rammerge.system.locks import locked
from tasks.records.aliases import CHAMPION
from tasks.records.connection import client, lock_file
from tasks.records.history import Event, Reason, What, read_history, with_event
from tasks.records.listing import every_model
from tasks.records.promotion import TAG_QUESTION, Promotion, promote, why_not
from tasks.records.registry import Release, champion_among, get_release, releases
from tasks.records.trouble import explained


class Question(BaseModel):
    """Whether a version may serve.

    Attributes:
        until: when an answer comes too late, in seconds since 1970.
        instead_of: the champion that the gates compared it with, if there was one.
        report: where the report is.
        flow_run: the address of the run that asks, in Prefect.
    """

    model_config = ConfigDict(frozen=True)

    until: float
    instead_of: int | None
    report: str
    flow_run: str

    @classmethod
    def of(cls, release: Release) -> "Question | None":
        """Return the question about a version; None if nobody is asked, or no longer."""
        try:
            question = cls.model_validate(yaml.safe_load(release.tags.get(TAG_QUESTION, "")))
        except (yaml.YAMLError, ValidationError):
            return None
        return question if question.until > time.time() else None

    @property
    def deadline(self) -> str:
        """The last moment for an answer, in local time."""
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self.until))


class Asked(BaseModel):
    """Whether a person is asked about a version; if not, why its promotion needs or gets no answer."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    question: Question | None
    serves: bool = False
    sentence: str


@explained()
def ask(name: str, version: int, question: Question) -> Asked:
    """Ask whether `version` may serve, unless it does already, or a person took it back or refused it before."""
    mlflow = client(write=True)
    with locked(lock_file("aliases")):
        if refusal := why_not(name, version, question.instead_of):
            serves = CHAMPION in get_release(name, version).aliases
            return Asked(name=name, version=version, question=None, serves=serves, sentence=refusal)
        release = get_release(name, version)
        tags = {TAG_QUESTION: yaml.safe_dump(question.model_dump(), sort_keys=False, width=1000)}
        if Question.of(release) is None:  # a later run of the same content asks the same
            tags |= with_event(release.tags, Event(what="asked", because="every gate passed"))
        for tag, value in tags.items():
            mlflow.set_model_version_tag(name, str(version), tag, value)
    sentence = (
        f"{name} version {version} waits for approval until {question.deadline}: "
        f"`rammerge approve {name} --because TEXT`, or `refuse`"
    )
    return Asked(name=name, version=version, question=question, sentence=sentence)


def answer(name: str, version: int, *, approve: bool, reason: Reason) -> Promotion:
    """Answer the question about `version`: promote it, or refuse it. The first answer counts.

    Raises:
        InputError: the version does not exist, or its files are missing or damaged.
    """
    question = Question.of(get_release(name, version))
    if not approve or question is None:
        return _refuse(name, version, reason)
    return promote(name, version, reason=reason, by_hand=True, instead_of=question.instead_of, answers=True)


@explained()
def _refuse(name: str, version: int, reason: Reason) -> Promotion:
    mlflow = client(write=True)
    with locked(lock_file("aliases")):
        release = get_release(name, version)
        open_ = TAG_QUESTION in release.tags
        if open_:
            what: What = "refused" if Question.of(release) else "timed out"
            event = Event(what=what, by=reason.by, because=reason.because)
            for tag, value in with_event(release.tags, event).items():
                mlflow.set_model_version_tag(name, str(version), tag, value)
            mlflow.delete_model_version_tag(name, str(version), TAG_QUESTION)
            release = get_release(name, version)
    serving = champion_among(releases(name))
    champion = serving.version if serving else None
    last = next(reversed(read_history(release.tags)), None)
    said = last.sentence if last else "never asked about"
    sentence = f"{name} version {version} is not promoted: it was {said}"
    if champion == version:
        sentence = f"{name} version {version} is champion already: {said}"
    return Promotion(name=name, champion=champion, previous=None, changed=open_, sentence=sentence)


def is_open(name: str, version: int) -> bool:
    """Tell whether the question about `version` still waits for an answer."""
    return Question.of(get_release(name, version)) is not None


def find_question(name: str, version: int | None = None) -> Release:
    """Return the version of `name` that waits for an answer: the newest one, or `version`.

    Raises:
        InputError: nobody is asked about it.
    """
    found = [release for release in _waiting(name) if version in (None, release.version)]
    if not found:
        which = f"version {version} of {name}" if version else f"no version of {name}"
        verb = "does not wait" if version else "waits"
        raise InputError(f"{which} {verb} for approval; see `rammerge releases {name}`")
    return found[0]


def find_question_of(run: str) -> Release | None:
    """Return the version about which the flow run with the id `run` asks, in whatever model; None if there is none."""
    models = every_model(client())
    waiting = ((release, Question.of(release)) for model in models for release in _waiting(model.name))
    return next(
        (release for release, question in waiting if question and question.flow_run.rpartition("/")[2] == run), None
    )


def _waiting(name: str) -> Iterator[Release]:
    return (release for release in releases(name) if Question.of(release) is not None)

"""The study of a search: Optuna proposes candidates, and a database keeps what became of them.

What is proposed depends on the trials before and on names alone: the sampler of each trial has a seed of its own, made
from the study's seed and the trial's number. Proposals are made in memory and kept in the database by whole batches,
once they have scores. So a search that was killed proposes again what it had proposed, and goes on as if nothing had
been.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.statistics import resampling_seed
from rammerge.errors import InputError
from rammerge.system.redaction import redact
from tasks.search.space import Space, Values

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna import Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

# Proposals made at once, before any of them has scores, so that a machine has several to work on. It does not depend on
# the machine, because a different number gives different proposals.
TOGETHER = 4

_METHOD = "method"
# Drawn at random before a model of the scores proposes, as is Optuna's default.
_RANDOM_TRIALS = 10
# Each generation learns from the one before, so few trials need small ones.
_POPULATION = 8
# In a row, before the space is to blame.
_MOST_REFUSED = 100


@dataclass(frozen=True)
class Proposal:
    """One trial: its number in the study, the method, and the parameters that differ from its defaults."""

    number: int
    method: str
    params: Values

    @property
    def words(self) -> str:
        """The method and its parameters."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.params.items())])


class Study:
    """Proposals for one space, and their scores."""

    def __init__(self, space: Space, *, name: str, seed: str, database: str, objectives: int) -> None:
        """Open the study `name`, or begin it.

        Args:
            space: what may be proposed.
            name: of the study in the database.
            seed: any text; the same text and the same scores give the same proposals.
            database: address, as SQLAlchemy reads it.
            objectives: the number of values of a trial.

        Raises:
            InputError: the database cannot be opened.
        """
        import optuna
        from optuna.study import StudyDirection

        self._space, self._seed = space, seed
        self._directions = [StudyDirection.MAXIMIZE] * objectives
        self._kept: OptunaStudy = optuna.create_study(
            storage=open_database(database), study_name=name, directions=self._directions, load_if_exists=True
        )
        self._study = self._remembered()

    def _remembered(self) -> "OptunaStudy":
        """Return a study in memory that knows what is kept and nothing else; the starts come next if they are new."""
        import optuna

        study: OptunaStudy = optuna.create_study(directions=self._directions)
        study.add_trials(self._kept.get_trials(deepcopy=False))
        for method, values in self._space.starts():
            study.enqueue_trial(_flat(method, values), skip_if_exists=True)
        return study

    def known(self) -> list[Proposal]:
        """Return the proposals that have scores, in their order."""
        from optuna.trial import TrialState

        return [self._proposal(trial) for trial in self._kept.get_trials(deepcopy=False, states=[TrialState.COMPLETE])]

    def ask(self, count: int) -> list[Proposal]:
        """Return new proposals, whose parameters make sense to their methods.

        Raises:
            InputError: hardly any parameters in the space make sense.
        """
        from optuna.trial import TrialState

        self._study = self._remembered()
        found: list[Proposal] = []
        for _ in range(count + _MOST_REFUSED):
            if len(found) == count:
                return found
            proposal = self._ask()
            try:
                self._space.settle(proposal.method, proposal.params)
                found.append(proposal)
            except InputError as error:
                self._study.tell(proposal.number, state=TrialState.FAIL)
                reason = str(error)
        raise InputError(f"the search finds no more parameters that make sense ({reason}); narrow its ranges")

    def tell(self, scored: Sequence[tuple[Proposal, Sequence[float]]]) -> None:
        """Remember the proposals of one `ask` with their scores, one for each objective."""
        for proposal, values in scored:
            self._study.tell(proposal.number, list(values))
        trials = self._study.get_trials(deepcopy=False)[len(self._kept.get_trials(deepcopy=False)) :]
        self._kept.add_trials([trial for trial in trials if trial.state.is_finished()])

    def _ask(self) -> Proposal:
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self._sampler(resampling_seed(self._seed, str(number)) % 2**32)
        trial = self._study.ask()
        method: str = trial.suggest_categorical(_METHOD, list(self._space.methods))
        # A generation mixes parents, which need the same parameters; those of other methods have no effect.
        for each in self._space.methods if len(self._directions) > 1 else [method]:
            self._suggest(trial, each)
        return self._proposal(trial)

    def _suggest(self, trial: "Trial", method: str) -> None:
        values: Values = {}
        for name, domain in self._space.ordered(method):
            if not self._space.applies(method, name, values):
                continue
            key = f"{method}.{name}"
            if domain.low is None or domain.high is None:
                values[name] = trial.suggest_categorical(key, domain.values)
            elif self._space.is_whole(method, name):
                values[name] = trial.suggest_int(key, int(domain.low), int(domain.high), log=domain.log)
            else:
                values[name] = trial.suggest_float(key, domain.low, domain.high, log=domain.log)

    def _proposal(self, trial: "Trial | FrozenTrial") -> Proposal:
        """Return what a trial proposes, floats with the digits that people can compare."""
        method = trial.params[_METHOD]
        values: Values = {}
        for name, domain in self._space.ordered(method):
            if (key := f"{method}.{name}") in trial.params:
                value = trial.params[key]
                if domain.low is not None and domain.high is not None and isinstance(value, float):
                    value = min(domain.high, max(domain.low, float(f"{value:.4g}")))
                values[name] = value
        return Proposal(trial.number, method, values)

    def _sampler(self, seed: int) -> "BaseSampler":
        from optuna.samplers import NSGAIISampler, TPESampler

        if len(self._directions) > 1:
            return NSGAIISampler(population_size=_POPULATION, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that `group`, without which methods would not compete, may change
            return TPESampler(n_startup_trials=_RANDOM_TRIALS, multivariate=True, group=True, seed=seed)


def open_database(address: str) -> "RDBStorage":
    """Return the database of trials at an address, with its tables made where they are missing.

    Raises:
        InputError: it cannot be opened.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.storages.RDBStorage(address)
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the database of trials {redact(address)} cannot be opened ({redact(reason)}); give an address such as "
            f"sqlite:////directory/trials.db, or none"
        ) from None


def _flat(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {_METHOD: method, **{f"{method}.{name}": value for name, value in values.items()}}

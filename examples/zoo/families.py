"""Train the zoo's agents over seeds and regimes: `python -m examples.zoo.families --out DIR --jobs 15`.

A family is one base and the agents that one regime makes of it. Bases lie in `DIR/seed-N/base`, agents in
`DIR/seed-N/REGIME/DOMAIN`; the base of seed 1, and its agents under SGD, are the committed zoo. What is there is not
trained again, so a run that was killed goes on with the models that are missing. Each model is trained in a process of
its own with one thread. The longest trainings start first, and an agent's as soon as its base is there.
"""

import argparse
import contextlib
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult
from pathlib import Path

import torch
import transformers

from examples.zoo import pretrain
from examples.zoo.checkpoint import CHECKPOINTS, RECORD, read_record, weights_digest
from examples.zoo.domains import DOMAINS
from examples.zoo.regimes import REGIMES, GrpoSettings, Regime, settings_of
from examples.zoo.train import make_agent, make_base
from rammerge.system.locks import try_locked

SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Family:
    """Where the models of one seed and regime lie."""

    out: Path
    seed: int
    regime: Regime

    @property
    def name(self) -> str:
        """What it is called in recipes and tables."""
        return f"zoo-{self.seed}-{self.regime}"

    @property
    def base(self) -> Path:
        """The base's checkpoint."""
        return CHECKPOINTS / "base" if self.seed == 1 else self.out / f"seed-{self.seed}" / "base"

    def agent(self, domain: str) -> Path:
        """The checkpoint of a domain's agent."""
        if self.seed == 1 and self.regime == "sgd":
            return CHECKPOINTS / domain
        return self.out / f"seed-{self.seed}" / self.regime / domain


@dataclass(frozen=True)
class Training:
    """A model to train: a base, or an agent from one."""

    folder: Path
    base: Path
    settings: pretrain.PretrainSettings | GrpoSettings

    @property
    def samples(self) -> int:
        """How much work it is: the completions that are drawn. A base comes before everything."""
        if isinstance(self.settings, pretrain.PretrainSettings):
            return 1_000_000
        return self.settings.steps * self.settings.prompts * self.settings.samples

    @property
    def done(self) -> bool:
        """Whether it is there, and an agent was trained from the base that is there; the record is written last."""
        if not (self.folder / RECORD).is_file():
            return False
        base = read_record(self.folder).get("base_sha256")  # neither a base nor the committed zoo has one
        return base is None or base == weights_digest(self.base)


def families(out: Path, seeds: Sequence[int] = SEEDS, regimes: Sequence[Regime] = REGIMES) -> list[Family]:
    """Return every family of `seeds` and `regimes` below `out`."""
    return [Family(out, seed, regime) for seed in seeds for regime in regimes]


def missing(of: Sequence[Family]) -> tuple[list[Training], list[Training]]:
    """Return the bases and the agents that are not there, the longest training first."""
    bases = {family.base: Training(family.base, family.base, pretrain.PretrainSettings(family.seed)) for family in of}
    agents = [
        Training(family.agent(domain), family.base, settings_of(domain, family.seed, family.regime))
        for family in of
        for domain in DOMAINS
    ]
    return [each for each in bases.values() if not each.done], sorted(
        (each for each in agents if not each.done), key=lambda each: -each.samples
    )


def train(training: Training) -> Path:
    """Train a model with one thread, with the steps told in a file beside its folder."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    training.folder.parent.mkdir(parents=True, exist_ok=True)
    log = training.folder.with_name(f"{training.folder.name}.log")
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        if isinstance(training.settings, pretrain.PretrainSettings):
            make_base(training.folder, training.settings)
        else:
            make_agent(training.base, training.folder, training.settings)
    return training.folder


def train_all(of: Sequence[Family], jobs: int) -> list[str]:
    """Train what is missing, `jobs` models at once, and return a line for each that failed."""
    bases, agents = missing(of)
    failed = []
    # Forked from here, where everything is imported; one task for each process, so none sees what another left behind.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:

        def begin(trainings: Iterable[Training]) -> list[tuple[Training, AsyncResult[Path]]]:
            return [(each, pool.apply_async(train, (each,))) for each in trainings]

        waiting = {base.folder for base in bases}
        begun = begin([*bases, *(agent for agent in agents if agent.base not in waiting)])
        for training, result in begun:  # which becomes longer when a base is there
            try:
                print(f"{result.get()} is trained", flush=True)
            except Exception as error:  # the others go on
                failed.append(f"{training.folder}: {type(error).__name__}: {error}")
            else:
                begun += begin(agent for agent in agents if training in bases and agent.base == training.folder)
    return failed


def main() -> None:
    """Train what is missing of the families that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the families")
    parser.add_argument("--jobs", type=int, default=2, help="models that are trained at once")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=REGIMES)
    arguments = parser.parse_args()
    of = families(arguments.out, arguments.seeds, arguments.regimes)
    try:
        with try_locked(arguments.out / ".families.lock"):
            failed = train_all(of, arguments.jobs)
    except BlockingIOError:
        sys.exit(f"another process trains families in {arguments.out}; wait for it, or give another --out")
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()

"""The pipeline: fetch base and agents, merge and evaluate every variant, judge the best one, and promote it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from prefect import State, flow
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.run import artifacts
from flows.run.against import against_adapters
from flows.run.alive import alive
from flows.run.batches import with_batches
from flows.run.champion import Challenge, challenge
from flows.run.checking import check, require_answers
from flows.run.given import GivenRecipe, read, run_name
from flows.run.licences import require_licences
from flows.run.outcome import Outcome
from flows.run.parts import Parts, count_parts, drop_parts, merge_parts
from flows.run.planned import Plan
from flows.run.planning import look_up
from flows.run.promoting import pushed, serve, tell
from flows.run.room import require_room
from flows.run.searching import search
from flows.run.sending import in_pools
from flows.run.settling import results, settle
from flows.run.sharing import bound_store, leave_store
from flows.run.telling import failure_told
from flows.run.watching import watched
from flows.run.yardsticks import ask_yardsticks, described, fetch_yardsticks, meet_servers, route_agents
from rammerge.errors import InputError
from rammerge.system.redaction import without_secrets
from tasks.records.layout import expect_records
from tasks.records.record import Judged, Record
from tasks.records.releasing import describe, register
from tasks.records.reporting import report
from tasks.records.tracking import track
from tasks.runtime.cluster import steps_on
from tasks.runtime.environment import activate
from tasks.runtime.models import ended_by_interrupt
from tasks.runtime.runner import workers
from tasks.runtime.tracing import trace_as_wished
from tasks.steps.activations import activations
from tasks.steps.conditions import Conditions
from tasks.steps.evaluating import Scores, evaluate
from tasks.steps.judging import compare, gate
from tasks.steps.merging import Merged, Together, merge, merge_together
from tasks.steps.overlap import OverlapResult, extract
from tasks.steps.packing import directory_of, pack
from tasks.steps.smoking import Smoked, smoke
from tasks.steps.sources import Fetched, fetch, preflight

# Before the flow, whose span Prefect begins before it calls it. What is missing is said when the flow begins.
with suppress(InputError):
    trace_as_wished()


@flow(name="merge-and-evaluate", flow_run_name=run_name, task_runner=workers())
@ended_by_interrupt()
@without_secrets
def merge_and_evaluate(recipe: GivenRecipe) -> "Outcome | State[Outcome]":
    """Run a recipe from its sources to a promoted model. Work that any earlier run did is not done again.

    Args:
        recipe: by path, inline, by git reference (`git+https://HOST/REPOSITORY@COMMIT#path/to/recipe.yaml`), or by URL
            (`https://HOST/recipe.yaml#sha256=DIGEST`).
    """
    activate()
    return carry_out(look_up(read(recipe)))


@alive()
@watched
def carry_out(todo: Plan) -> "State[Outcome]":
    """Do what is planned, in the flow that calls this, and return the flow's final state."""
    with failure_told(todo.recipe):
        check(todo)
        with steps_on(todo.recipe.compute), in_pools(todo.recipe.compute):
            outcome = _carry_out(todo)
    return Completed(name=outcome.state, message=outcome.sentence, data=outcome)


def _carry_out(todo: Plan) -> Outcome:
    began = time.time()
    bound_store(todo.recipe)
    todo = replace(todo, servers=meet_servers(todo))
    spec, family = todo.recipe, _bring(todo)
    todo = with_batches(todo, family.base)
    todo, searched = search(todo, family.sources, family.overlap.result())  # by the validation items alone
    started = _start(todo, family)
    scores = started.scores | ask_yardsticks(todo, family.yardsticks)
    settle(*started.parts.all, *started.together, *started.variants.values(), *started.smoked.values())
    drop_parts(started.parts.all)
    variants = results(started.variants)
    if family.unmade:
        expect_records(next(iter(variants.values())).path)  # beside the evaluations, which are in other processes
    rival = challenge(todo, variants)
    judged = _judge(todo, scores, rival) if spec.evaluates else None
    artifacts.publish_variants(spec.name, variants)
    record = Record(
        recipe=spec,
        sources=family.sources,
        methods=todo.variants,
        variants=variants,
        smoked=results(started.smoked),
        suites=todo.suites,
        overlap=family.overlap.result(),
        judged=judged,
        searched=searched,
        yardsticks=results(family.yardsticks) | dict(todo.servers),
        started=began,
    )
    against = record.overlap.against(todo.variants)
    return _release(record, todo.conditions, rival, [*family.warnings, *against])


@dataclass(frozen=True)
class _Family:
    """The models to merge, checked, and what is known of them before the merges.

    Attributes:
        base: the base.
        agents: by name.
        yardsticks: checkpoints to measure the merges against, by name.
        overlap: the elements that each agent changed.
        unmade: the variants that no earlier run merged.
        warnings: what the user should know.
    """

    base: PrefectFuture[Fetched]
    agents: Mapping[str, PrefectFuture[Fetched]]
    yardsticks: Mapping[str, PrefectFuture[Fetched]]
    overlap: PrefectFuture[OverlapResult]
    unmade: Sequence[str]
    warnings: list[str]

    @property
    def sources(self) -> dict[str, Fetched]:
        """The base, called `base`, and the agents."""
        return results({"base": self.base, **self.agents})


def _bring(todo: Plan) -> _Family:
    """Fetch the models to merge, check them, and count the elements that each agent changed (RAM paper, Sec. 3)."""
    spec = todo.recipe
    base = fetch.submit("base", todo.base)
    agents = {name: fetch.submit(name, origin, base) for name, origin in todo.agents.items()}
    yardsticks = fetch_yardsticks(todo)
    settle(base, *agents.values(), *yardsticks.values())
    sources = results({"base": base, **agents})
    require_licences(todo, {name: model.path for name, model in sources.items()})
    unmade = require_room(todo, sources)
    heard = require_answers(todo, sources | results(yardsticks))
    notes = {name: agent.result().notes for name, agent in agents.items()}
    checked = preflight.submit(base, agents, todo.groups, spec.output, notes)
    counted = count_parts(todo, sources, checked)
    overlap = extract.submit(base, agents, todo.groups, spec.output.resize, spec.compute, checked, counted)
    settle(checked, *counted, overlap)
    drop_parts(counted)
    artifacts.publish_overlap(spec.name, overlap.result())
    adapted = against_adapters(todo, sources)
    warnings = [*checked.result().warnings, *heard, *adapted, *overlap.result().warnings]
    return _Family(base, agents, yardsticks, overlap, unmade, warnings)


@dataclass(frozen=True)
class _Started:
    """The steps that were started: merges in parts and in one read, each variant, the proofs that they run, scores."""

    parts: Parts
    together: list[PrefectFuture[Together]]
    variants: Mapping[str, PrefectFuture[Merged]]
    smoked: Mapping[str, PrefectFuture[Smoked]]
    scores: dict[str, PrefectFuture[Scores]]


def _start(todo: Plan, family: _Family) -> _Started:
    """Start every merge (Sec. 4), the proof that each one runs, and the evaluation of all models.

    Threads take steps in the order in which they are submitted. So what waits for the merges comes after what need not.
    """
    spec, base, agents = todo.recipe, family.base, family.agents
    recorded = {key: activations.submit(base, prompts, spec.compute) for key, prompts in todo.prompts.items()}
    given = (spec.output, spec.compute, family.overlap)
    parts = merge_parts(todo, family.sources, family.overlap.result(), family.unmade)
    together = None
    if todo.together:
        together = merge_together.submit(base, agents, todo.groups, todo.together, *given, parts=parts.merged)

    def merged(name: str) -> PrefectFuture[Merged]:
        method, waits = todo.variants[name], name in todo.together
        return merge.submit(
            *(name, base, agents, todo.groups, method, *given),
            activations=recorded.get(method.data),
            together=together if waits else None,
            parts=[] if waits else parts.merged,
        )

    alone = {name: merged(name) for name in todo.variants if name not in todo.together}
    scores = _evaluate(todo, {"base": base, **agents})
    variants = {name: alone[name] if name in alone else merged(name) for name in todo.variants}
    smoked = {name: smoke.submit(name, model, spec.compute) for name, model in variants.items()}
    scores |= _evaluate(todo, variants)
    return _Started(parts, [together] if together else [], variants, smoked, scores)


def _evaluate(todo: Plan, models: Mapping[str, PrefectFuture[Any]]) -> dict[str, PrefectFuture[Scores]]:
    """Start the evaluation of models on every suite, if the recipe has any."""
    if not todo.recipe.evaluates:
        return {}
    return {name: evaluate.submit(name, model, todo.suites, todo.conditions) for name, model in models.items()}


def _judge(todo: Plan, scores: Mapping[str, PrefectFuture[Scores]], rival: Challenge) -> Judged:
    """Compare everyone, choose a variant on validation, and judge it by the gates on test."""
    spec = todo.recipe
    routed = route_agents(todo, scores)
    settle(*scores.values(), *routed.values())
    methods = {name: method.name for name, method in todo.variants.items()}
    everyone: dict[str, PrefectFuture[Any]] = {**scores, **routed, **rival.scores}
    confidence, beside = spec.evaluation.confidence, described(todo, results(routed))
    board = compare.submit(everyone, list(todo.agents), methods, confidence, rival.extra, beside)
    settle(board)
    opponent = rival.opponent(board.result().selected)
    decision = gate.submit(board, todo.gates, opponent, todo.gate_code, spec.trust, spec.directory)
    settle(decision)
    artifacts.publish_leaderboard(spec.name, board.result())
    artifacts.publish_decision(spec.name, decision.result())
    return Judged(scores=results(everyone), leaderboard=board.result(), decision=decision.result())


def _release(record: Record, conditions: Conditions, rival: Challenge, warnings: Sequence[str]) -> Outcome:
    """Put the run on record with its provenance, and make the selected variant the champion if the gates say so."""
    spec, judged, run = record.recipe, record.judged, str(flow_run.id)
    reported = report.submit(record, judged, conditions) if judged else None
    runs = track.submit(record, reported, run)
    release = register.submit(record, runs, run)
    settle(*([reported] if reported else []), runs, release)
    page = reported.result().page if reported else None
    passes = judged is not None and judged.decision.passed and spec.promotes
    served = serve(spec, release.result(), runs.result(), page, rival.version) if passes else None
    champion = served.sentence if served else describe(release.result())
    artifacts.publish_release(spec.name, champion, release.result(), runs.result(), page)
    artifacts.tag_run(spec.name, {"none": "not evaluated"}.get(record.verdict, record.verdict))
    outcome = Outcome(
        recipe=spec.name,
        recipe_digest=spec.digest,
        leaderboard_file=judged.leaderboard.path / "leaderboard.json" if judged else None,
        decision_file=judged.decision.path / "decision.json" if judged else None,
        report=page,
        selected=record.variant,
        passed=record.verdict != "refused",
        refusals=judged.decision.refusals if judged else [],
        model=directory_of(record.selected),
        registered=(release.result().name, release.result().version),
        champion=champion,
        approval=served.approval if served else "none",
        run_id=runs.result().run_id,
        warnings=[*warnings, *record.selected.warnings, *pushed(spec, release.result(), served)],
    )
    outcome.keep()
    tell(spec, outcome, served, judged.leaderboard.load() if judged else None, rival.version)
    if spec.store.pack:
        agents = {name: source for name, source in record.sources.items() if name != "base"}
        settle(pack.submit(record.sources["base"], agents, record.variants, record.variant))
    leave_store(spec)
    return outcome

"""The pipeline: fetch base and agents, merge and evaluate every variant, judge the best one, and promote it."""

import time
from collections.abc import Mapping
from pathlib import Path

from prefect import State, flow
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.run import artifacts
from flows.run.champion import Challenge, challenge
from flows.run.checking import check, require_answers, require_room
from flows.run.outcome import Outcome
from flows.run.planning import Plan, plan
from flows.run.searching import search
from flows.run.settling import results, settle
from rammerge.errors import InputError
from rammerge.recipe import load
from tasks.records.layout import expect_registration
from tasks.records.record import Judged, Record
from tasks.records.releasing import describe, promote, register
from tasks.records.reporting import report
from tasks.records.tracking import track
from tasks.runtime.environment import activate
from tasks.runtime.runner import workers
from tasks.runtime.slots import ended_by_interrupt
from tasks.steps.activations import activations
from tasks.steps.evaluating import Conditions, Scores, compare, evaluate, gate
from tasks.steps.merging import extract, merge, merge_together, smoke
from tasks.steps.sources import fetch, preflight


def _run_name() -> str:
    recipe = Path(flow_run.parameters["recipe"])
    try:
        return load(recipe).name
    except InputError:
        return recipe.stem  # a run without a name would crash; this one fails with the sentence


@flow(name="merge-and-evaluate", flow_run_name=_run_name, task_runner=workers())
@ended_by_interrupt()
def merge_and_evaluate(recipe: Path) -> "Outcome | State[Outcome]":
    """Run `recipe` from its sources to a promoted model. Work that any earlier run did is not done again."""
    activate()
    return carry_out(plan(recipe))


def carry_out(todo: Plan) -> "State[Outcome]":
    """Do what is planned, in the flow that calls this, and return the flow's final state."""
    started = time.time()
    check(todo)
    spec = todo.recipe

    # The models to merge, and the elements that each agent changed (RAM paper, Sec. 3).
    base = fetch.submit("base", todo.base)
    agents = {name: fetch.submit(name, origin, base) for name, origin in todo.agents.items()}
    settle(base, *agents.values())
    sources = results({"base": base, **agents})
    unmade = require_room(todo, sources)
    heard = require_answers(todo, sources)
    notes = {name: agent.result().notes for name, agent in agents.items()}
    checked = preflight.submit(base, agents, todo.groups, spec.output, notes)
    overlap = extract.submit(base, agents, todo.groups, spec.output.resize, spec.compute, checked)
    settle(checked, overlap)
    artifacts.publish_overlap(spec.name, overlap.result())

    # What a search finds, by the validation items alone.
    todo, searched = search(todo, sources, overlap.result())

    # The merges (Sec. 4), and proof that each one runs.
    recorded = {key: activations.submit(base, prompts, spec.compute) for key, prompts in todo.prompts.items()}
    given = (spec.output, spec.compute, overlap)
    together = merge_together.submit(base, agents, todo.groups, todo.together, *given) if todo.together else None
    variants = {
        name: merge.submit(
            *(name, base, agents, todo.groups, method, *given),
            activations=recorded.get(method.data),
            together=together if name in todo.together else None,
        )
        for name, method in todo.variants.items()
    }
    smoked = {name: smoke.submit(name, model, spec.compute) for name, model in variants.items()}

    # Everyone on every suite; chosen on validation, judged on test.
    models = {"base": base, **agents, **variants} if spec.evaluates else {}
    conditions = Conditions.of(spec)
    scores = {name: evaluate.submit(name, model, todo.suites, conditions) for name, model in models.items()}
    settle(*([together] if together else []), *variants.values(), *smoked.values())
    if unmade:
        expect_registration()  # beside the evaluations, which are in other processes
    rival = challenge(todo, results(variants), conditions)
    judged = _judge(todo, scores, rival) if spec.evaluates else None
    artifacts.publish_variants(spec.name, results(variants))

    # On record, with its provenance; champion if the gates say so.
    record = Record(
        recipe=spec,
        sources=sources,
        methods=todo.variants,
        variants=results(variants),
        smoked=results(smoked),
        suites=todo.suites,
        overlap=overlap.result(),
        judged=judged,
        searched=searched,
        started=started,
    )
    run = str(flow_run.id)
    reported = report.submit(record, judged, conditions) if judged else None
    runs = track.submit(record, reported, run)
    release = register.submit(record, runs, run)
    settle(*([reported] if reported else []), runs, release)
    champion = describe(release.result())
    if judged and judged.decision.passed and spec.promotes:
        champion = promote.submit(spec.model_name, release, rival.version).result().sentence
    page = reported.result().page if reported else None
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
        model=record.selected.path,
        registered=(release.result().name, release.result().version),
        champion=champion,
        run_id=runs.result().run_id,
        warnings=[*checked.result().warnings, *heard, *overlap.result().warnings, *record.selected.warnings],
    )
    outcome.keep()
    return Completed(name="Completed" if outcome.passed else "Refused", message=outcome.sentence, data=outcome)


def _judge(todo: Plan, scores: Mapping[str, PrefectFuture[Scores]], rival: Challenge) -> Judged:
    """Compare everyone, choose a variant, and judge it by the gates."""
    spec = todo.recipe
    settle(*scores.values())
    methods = {name: method.name for name, method in todo.variants.items()}
    everyone = {**scores, **rival.scores}
    board = compare.submit(everyone, list(todo.agents), methods, spec.evaluation.confidence, rival.extra)
    settle(board)
    opponent = rival.opponent(board.result().selected)
    decision = gate.submit(board, todo.gates, opponent, todo.gate_code, spec.trust, spec.directory)
    settle(decision)
    artifacts.publish_leaderboard(spec.name, board.result())
    artifacts.publish_decision(spec.name, decision.result())
    return Judged(scores=results(everyone), leaderboard=board.result(), decision=decision.result())

"""`docs/results.md` and its figures, made of the runs alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.results.advising import HELD_OUT, advised, judge, known, language_model, regret
from benchmarks.results.analysis import REFERENCES, Line, difference, lines, tried, tuned, untuned
from benchmarks.results.data import Model, Run
from benchmarks.results.entries import SEARCH
from benchmarks.results.figures import methods_svg
from benchmarks.results.verdict import verdict
from evaluation.statistics import Estimate
from rammerge.overlap.advisor import CLOSE, NEAREST, advise
from rammerge.system.atomic import write_text

# The order of the columns; groups that are not named follow.
_GROUPS = ("sgd", "adamw-bf16", "adamw-float32")


def write_page(runs: Sequence[Run], docs: Path) -> str:
    """Write the page to `docs/results.md`, from the text in `page.md`, and its figures beside it.

    Returns:
        What it says, in three sentences.
    """
    groups = {
        group: [run for run in runs if run.group == group]
        for group in sorted({run.group for run in runs}, key=lambda group: (*_GROUPS, group).index(group))
    }
    plain = {group: lines([untuned(run) for run in found]) for group, found in groups.items()}
    chosen = {group: lines([tuned(run) for run in found]) for group, found in groups.items()}
    for name, found in (("untuned", plain), ("tuned", chosen)):
        write_text(docs / f"results-{name}.svg", methods_svg(found))
    said = verdict(groups, plain)
    text = Path(__file__).with_name("page.md").read_text("utf-8")
    page = text.format(
        verdict=said,
        seeds=", ".join(map(str, sorted({run.seed for run in runs}))),
        agents=_agents(groups),
        untuned=_methods(plain),
        tuned=_methods(chosen, _tried(runs)),
        trials=SEARCH["trials"],
        duels=_duels(groups),
        families=_families(runs),
        advisor=_advisor(runs),
        language_model=_language_model(runs),
        nearest=NEAREST,
        close=CLOSE,
        models=len(runs[0].models),
        items=sum(len(scores) for scores in runs[0].models[0].test.values()),
        minutes=sum(run.seconds for run in runs) / 60,
    )
    write_text(docs / "results.md", page)
    return said


def _agents(groups: Mapping[str, Sequence[Run]]) -> str:
    rows = []
    for group, runs in groups.items():
        found = [run.features for run in runs]
        shares = (
            [value for run in runs for value in run.densities.values()],
            [each.shared for each in found],
            [each.by_chance for each in found],
        )
        rest = ([each.cosine for each in found], [each.same_sign for each in found])
        spread = [f"{100 * min(values):.0f}-{100 * max(values):.0f} %" for values in shares]
        plain = [f"{min(values):.2f} to {max(values):.2f}" for values in rest]
        scores = [_mean(model.average for run in runs for model in run.models if model.kind == "base")]
        scores.append(_mean(run.specialists() for run in runs))
        rows.append([group, str(len(runs)), *spread, *plain, *(f"{score:.1f}" for score in scores)])
    columns = ["regime", "seeds", "density", "shared", "by chance", "cosine", "same sign", "base", "specialists"]
    return _table(columns, rows)


def _language_model(runs: Sequence[Run]) -> str:
    run = language_model()
    advice = advise(run.features, list(map(known, runs)))
    best = max(run.scores, key=lambda method: run.scores[method])
    behind = run.scores[best] - run.scores[advice.best]
    others = f", and as equally good {', '.join(f'`{name}`' for name in advice.close)}" if advice.close else ""
    guess = "\nIt says that it guesses, because none of them is like these agents." if advice.far else ""
    return (
        f"The advisor also knows the run of a real language model, [`{run.name}`](../examples/smollm2/README.md).\n"
        f"From the runs of this page alone it names `{advice.best}`{others}.{guess}\n"
        f"There `{best}` is the best untuned method, and `{advice.best}` is {behind:.1f} points below it."
    )


def _methods(groups: Mapping[str, Sequence[Line]], counts: Mapping[str, str] | None = None) -> str:
    by_group = {group: {line.name: line for line in found} for group, found in groups.items()}
    names = next(iter(by_group.values()))
    order = sorted(names, key=lambda name: _mean(found[name].rank for found in by_group.values()))
    rows = []
    for name in order:
        found = [lines_of[name] for lines_of in by_group.values()]
        best = [line.behind is None or line.behind.high >= 0 for line in found]
        cells = [
            f"**{_score(line.score)}**" if top else _score(line.score) for line, top in zip(found, best, strict=True)
        ]
        more = [] if counts is None else [counts.get(name, "all")]
        rows.append([name, *more, *cells, f"{_mean(line.rank for line in found):.1f}", str(sum(x.wins for x in found))])
    more = [] if counts is None else ["variants"]
    return _table(["method", *more, *by_group, "mean rank", "first"], rows)


def _duels(groups: Mapping[str, Sequence[Run]]) -> str:
    pairs = [("ram_plus", "task_arithmetic"), ("ram", "task_arithmetic"), ("ram_plus", "average"), ("ram_plus", "ties")]
    rows = []
    for choose, kind in ((untuned, "untuned"), (tuned, "tuned")):
        for ours, theirs in pairs:
            cells = [_points(difference([choose(run) for run in runs], ours, theirs)) for runs in groups.values()]
            rows.append([f"{ours} - {theirs}, {kind}", *cells])
    for theirs in REFERENCES:
        choices = [
            [{"search": tuned(run)["search"], theirs: untuned(run)[theirs]} for run in runs] for runs in groups.values()
        ]
        rows.append([f"search - {theirs} untuned", *(_points(difference(each, "search", theirs)) for each in choices)])
    return _table(["difference", *groups], rows)


def _families(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        best = max(untuned(run).values(), key=lambda model: model.average)
        found = tuned(run)["search"]
        cells = [untuned(run)[name].average for name in REFERENCES]
        shown = [f"{value:.1f}" for value in (run.specialists(), *cells)]
        rows.append([run.name, *shown, f"{best.name} {best.average:.1f}", _setting(found), f"{run.seconds:.0f}"])
    columns = ["family", "specialists", *REFERENCES, "best untuned", "search: setting, score", "seconds"]
    return _table(columns, rows)


def _advisor(runs: Sequence[Run]) -> str:
    parts = []
    for held_out in HELD_OUT:
        record = judge(runs, held_out)
        if record is None:
            continue
        told = advised(runs, held_out)
        rows = [
            [run.name, told[run.name].best, told[run.name].worst, f"{regret(run, told[run.name].best):.1f}"]
            for run in runs
            if run.name in told
        ]
        text = f"{record.sentence()[0].upper()}{record.sentence()[1:]}."
        parts += [text, _table(["family", "likely to win", "likely to lose", "points below the best"], rows)]
    return "\n\n".join(parts)


def _setting(model: Model) -> str:
    return f"{model.setting}: {model.average:.1f}"


def _tried(runs: Sequence[Run]) -> dict[str, str]:
    """Return method -> how many variants were compared on validation; a search adds to some methods in some runs."""
    counts = [tried(run) for run in runs]
    spread = {name: sorted({each[name] for each in counts}) for name in counts[0]}
    return {name: "-".join(map(str, dict.fromkeys((found[0], found[-1])))) for name, found in spread.items()}


def _score(found: Estimate) -> str:
    return f"{found.value:.1f} ({max(found.low, 0):.0f}-{min(found.high, 100):.0f})"


def _points(found: Estimate) -> str:
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, align, *rows))

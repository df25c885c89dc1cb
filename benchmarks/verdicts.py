"""Verdicts of two judges on the same answers, counted."""

from collections import Counter


def print_verdicts(counts: Counter[tuple[str, bool, bool]], what: str) -> None:
    """Print, for each kind of answer, how often we and the others accept; keys are the kind, our verdict and theirs."""
    print(f"{what:<12} {'both accept':>12} {'both refuse':>12} {'only ours':>10} {'only theirs':>12}")
    for name in sorted({name for name, *_ in counts}):
        verdicts = ((True, True), (False, False), (True, False), (False, True))
        both, neither, only_ours, only_theirs = (counts[name, *each] for each in verdicts)
        print(f"{name:<12} {both:>12} {neither:>12} {only_ours:>10} {only_theirs:>12}")

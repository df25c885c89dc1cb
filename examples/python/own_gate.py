"""A gate of your own: the variant may not lose a domain that its best agent has.

From a recipe beside this file: `trust: [own_gate]` and `gates: [{rule: "own_gate:KeepsSpecialists", share: 0.9}]`. An
installed package offers a gate under an entry point of the group `rammerge.gates` instead, and needs no `trust`.
"""

from pydantic import Field

from evaluation.judging.gates import Gate, GateOutcome
from evaluation.judging.leaderboard import Leaderboard


class KeepsSpecialists(Gate):
    """On every suite the variant reaches at least `share` of the best agent's score."""

    share: float = Field(default=0.9, ge=0, le=1)

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """Compare the variant with the best agent of each suite, on the test split."""
        ours, agents = leaderboard.row(variant), [leaderboard.row(name) for name in leaderboard.names("agent")]
        best = {suite: max(row.suites["test"][suite].value for row in agents) for suite in leaderboard.suites}
        shares = {suite: ours.suites["test"][suite].value / score if score else 1.0 for suite, score in best.items()}
        worst = min(shares, key=lambda suite: shares[suite])
        passed = shares[worst] >= self.share
        claim = "keeps" if passed else "does not keep"
        return GateOutcome(
            rule=self.rule,
            passed=passed,
            sentence=f"{variant} {claim} {self.share:.0%} of the best agent on every suite: the least is "
            f"{shares[worst]:.1%} on {worst}.",
            numbers={f"{suite}.share": share for suite, share in shares.items()},
        )

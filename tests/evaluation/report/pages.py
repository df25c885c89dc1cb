"""A report made up without a run, with hostile text wherever a model or a user can put text."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.judging.deciding import decide, parse_gate
from evaluation.judging.leaderboard import Champion
from evaluation.report.page import AgentChange, Cost, Page, VariantFacts, build_atlas, find_flips
from evaluation.search.history import History, Trial
from evaluation.search.schedule import SHARES
from rammerge.numerics.masks import Mask
from rammerge.overlap import Gram, Overlap
from rammerge.system.tables import Table
from tests.evaluation.boards import AGENTS, SUITES, board

MARKUP = '<script>document.title="owned"</script><img src="http://127.0.0.1:9/x"><style>*{display:none}</style>'
TERMINAL = "\x1b[31mred\x07\u202eback\x00"
TENSORS = {
    "model.embed_tokens.weight": 1000,
    "model.layers.0.mlp.experts.0.up_proj.weight": 100,
    "model.layers.0.mlp.experts.1.up_proj.weight": 100,
    "model.layers.10.self_attn.q_proj.weight": 50,
    "model.layers.2.self_attn.q_proj.weight": 50,
    "model.norm.weight": 10,
}


def sample(number: int, score: float, completion: str) -> Mapping[str, Any]:
    return {"id": f"i{number:02}", "prompt": MARKUP, "target": "4", "completion": completion, "score": score}


def overlap(
    agents: tuple[str, ...],
    counts: Mapping[str, Sequence[Sequence[int]]],
    sizes: Mapping[str, int],
    products: Mapping[str, Sequence[float]] | None = None,
) -> Overlap:
    return Overlap(agents, Mask(), sizes, counts, gram=Gram(agents, products) if products else None)


def searched(count: int = 30) -> History:
    """A search in which later trials are better on average and worse on the worst suite."""
    trials = [
        Trial(
            number=number,
            method="ram_plus",
            params={"r": number / 10},
            first={"average": 0.5 + number / 100, "worst": 0.5 - number / 100},
            suites={"zoo_tool": 0.5, "zoo_code": 0.5 + number / 50},
            items=100,
            looks=len(SHARES) if number > 27 else 1,
        )
        for number in range(count)
    ]
    return History(objectives=["average"], trials=trials, best=29, second=28, answers=3000, full=12000)


def page(**changes: Any) -> Page:
    chosen = board(champion=Champion(name="zoo version 3", row="half"))
    ours = [sample(number, float(number % 3 > 0), MARKUP + TERMINAL) for number in range(30)]
    theirs = [sample(number, float(number % 2), "x" * 5000) for number in range(30)]
    counts = {tensor: [[size // 10, size // 5], [size // 20, size // 5]] for tensor, size in TENSORS.items()}
    fields: dict[str, Any] = {
        "title": MARKUP,
        "board": chosen,
        "decision": decide(chosen, chosen.selected, [parse_gate({"rule": "beats_every_agent"})]),
        "agents": [
            AgentChange("tool", 0.3, 1 / 3, {"tool": 1.0, "code": -0.0625}),
            AgentChange("code", 0.25, 0.2, {"tool": -0.0625, "code": 1.0}),
        ],
        "figures": [Table(["module", "tool"], [["q_proj", "12.5 %"]], MARKUP)],
        "atlas": build_atlas(overlap(AGENTS, counts, TENSORS, {tensor: [4.0, -1.0, 1.0] for tensor in TENSORS})),
        "variants": [
            VariantFacts(name, "ram", {"tool": 1.25}, 0.5, {"tool": 0.75, "code": 1.0}, [MARKUP])
            for name in chosen.names("variant")
        ],
        "flips": [*find_flips(SUITES[0], "base", ours, theirs)],
        "costs": [
            Cost("ram", {"merge": 1.5, "evaluate": 1234.5}, 5000, 300 << 20),
            Cost("base", {"evaluate": 0.5}),
        ],
        "shared_seconds": {"extract": 0.5},
        "facts": {"base": "sha256:" + "0" * 64},
        "recipe": MARKUP,
        "search": searched(),
        "warnings": [TERMINAL],
        "advice": [f"likely to win: {MARKUP}"],
    }
    return Page(**fields | changes)

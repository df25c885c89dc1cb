"""Contract: what a variant is, is said whole: on the report's page, in MLflow, and where two versions are compared."""

from tasks.records.shown import method_params
from tasks.steps.methods import MethodRef


def test_the_steps_after_a_method_are_said_with_it() -> None:
    method = MethodRef(
        name="ties",
        preset="paper",
        params={"density": 0.2, "seed": None},
        weights={"tool": 0.5},
        tensors=[{"match": "*norm*", "from": "base"}],
        then=[{"svc": {"alpha": 0.1}}],
    )
    assert method.words == "ties, preset paper, density 0.2, weight of tool 0.5, 1 rule for tensors, then svc alpha 0.1"
    assert method_params(method)["then"] == [{"svc": {"alpha": 0.1}}]
    assert "then" not in method_params(MethodRef(name="ram", preset=None, params={}))

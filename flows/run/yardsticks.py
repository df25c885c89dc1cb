"""Measure the merges against models that are never merged: checkpoints, models on servers, and all agents together."""

from collections.abc import Mapping

from prefect.futures import PrefectFuture

from evaluation.backends.listing import describe
from evaluation.backends.served import Endpoint
from evaluation.judging.leaderboard import Yardstick
from flows.run.planned import Plan
from rammerge.errors import RammergeError
from rammerge.recipe import ROUTER
from tasks.steps.evaluating import Scores, evaluate
from tasks.steps.routing import Routing, route
from tasks.steps.serving import Server, evaluate_served
from tasks.steps.sources import Fetched, fetch

_LIST_SECONDS = 10.0


def fetch_yardsticks(todo: Plan) -> dict[str, PrefectFuture[Fetched]]:
    """Fetch the checkpoints among the yardsticks."""
    return {name: fetch.submit(name, origin) for name, origin in todo.yardsticks.items()}


def ask_yardsticks(todo: Plan, models: Mapping[str, PrefectFuture[Fetched]]) -> dict[str, PrefectFuture[Scores]]:
    """Evaluate the yardsticks on the plan's suites, as the recipe orders them."""
    return {
        name: evaluate_served.submit(name, todo.servers[name], todo.suites, todo.conditions)
        if name in todo.servers
        else evaluate.submit(name, models[name], todo.suites, todo.conditions)
        for name in todo.recipe.yardsticks
    }


def meet_servers(todo: Plan) -> dict[str, Server]:
    """Return the servers with what they say of their models.

    A server that does not list its model is asked for a token, because some load a model when it is first asked.

    Raises:
        InputError: a server is not there, refuses the key, or does not know the model; the message names the file, the
            line and the fix.
    """
    met = {}
    for name, server in todo.servers.items():
        endpoint = Endpoint(**server.endpoint)
        try:
            if not (said := describe(endpoint, seconds=_LIST_SECONDS)):
                _try_out(endpoint, {suite.chat for suite in todo.suites})
        except RammergeError as error:
            raise todo.recipe.error(("yardsticks", name), str(error)) from error
        met[name] = server.model_copy(update={"said": said})
    return met


def _try_out(endpoint: Endpoint, chats: set[bool]) -> None:
    from evaluation.runners.served import ServedModel  # which a recipe without servers has no need of

    model = ServedModel(endpoint, {})
    for chat in sorted(chats):
        model.try_out(chat=chat)


def route_agents(todo: Plan, scores: Mapping[str, PrefectFuture[Scores]]) -> dict[str, PrefectFuture[Routing]]:
    """Combine the agents' scores into those of keeping all of them, if the recipe wants that."""
    agents = {name: scores[name] for name in todo.agents}
    return {name: route.submit(name, agents) for name in todo.recipe.routed}


def described(todo: Plan, routed: Mapping[str, Routing]) -> dict[str, Yardstick]:
    """Return the yardsticks with what the leaderboard says of them, by their rows."""
    found = {name: Yardstick(kind="yardstick", note=_note(name, todo)) for name in todo.recipe.yardsticks}
    for name, routing in routed.items():
        count = len(todo.agents)
        note = f"keeps all {count} agents in memory, {count} times that of one model, and {routing.words}"
        found[name] = Yardstick(kind="ensemble" if name == ROUTER else "bound", note=note)
    return found


def _note(name: str, todo: Plan) -> str:
    if name in todo.yardsticks:
        return f"{todo.yardsticks[name].written}, evaluated as the other models are"
    server = todo.servers[name]
    as_of = f", asked as of {server.as_of}" if server.as_of else ""
    return f"{server.model} at {server.url}{as_of}, whose dtype and chat template are the server's own"

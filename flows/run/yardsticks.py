"""Measure the merges against models that are never merged: checkpoints, models on servers, and all agents together."""

from collections.abc import Mapping
from typing import Any

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
        name: evaluate_served.submit(name, todo.servers[name], **_asked(todo))
        if name in todo.servers
        else evaluate.submit(name, models[name], todo.suites, todo.conditions)
        for name in todo.recipe.yardsticks
    }


def meet_servers(todo: Plan) -> dict[str, Server]:
    """Return the servers with what they say of their models.

    A server may be away if its model has answered everything before.

    Raises:
        InputError: a server is not there, refuses the key, or does not know the model; the message names the file, the
            line and the fix.
    """
    met = {}
    for name, server in todo.servers.items():
        try:
            met[name] = server.model_copy(update={"said": _meet(server, {suite.chat for suite in todo.suites})})
        except RammergeError as error:
            before = server.recalled()
            if before is None or evaluate_served.find(server=before, **_asked(todo)) is None:
                raise todo.recipe.error(("yardsticks", name), str(error)) from error
            met[name] = before
        else:
            met[name].remember()
    return met


def _asked(todo: Plan) -> dict[str, Any]:
    """Return what a model on a server is asked."""
    return {"suites": todo.suites, "limit": todo.conditions.limit, "lm_eval": todo.conditions.lm_eval}


def _meet(server: Server, chats: set[bool]) -> dict[str, Any]:
    """Return what the list of models says; a model that it lacks is asked for a token, and may be loaded by that."""
    endpoint = Endpoint(**server.endpoint)
    if said := describe(endpoint, seconds=_LIST_SECONDS):
        return said
    from evaluation.runners.served import ServedModel  # which most runs have no need of

    model = ServedModel(endpoint, {})
    for chat in sorted(chats):
        model.try_out(chat=chat)
    return {}


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
    words = [f"{server.model} at {server.url}", *([f"asked as of {server.as_of}"] if server.as_of else [])]
    words += ["whose dtype and chat template are the server's own"]
    return ", ".join([*words, *(["which is away, so these are its earlier answers"] if server.away else [])])

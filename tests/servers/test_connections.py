"""Contract: a run goes on though every connection to the database ends, as in a restart of PostgreSQL or a failover."""

import re

import pytest

from tests.fixtures.pipeline import World
from tests.servers.conftest import Site, wait
from tests.servers.test_runs import METHOD, RUN

pytestmark = pytest.mark.servers


def test_a_run_outlives_every_connection(site: Site, world: World) -> None:
    (world.root / "losing.py").write_text(METHOD)
    (world.root / "merging").unlink(missing_ok=True)
    (world.root / "hold").touch()
    settings = {"merges": ["losing:HELD"], "trust": ["losing"], "evaluation": "none", "gates": None}
    # Of a dtype that nobody has merged to yet, because the method's code is that of the other tests.
    recipe = world.write(name="losing", output={"dtype": "float16"}, **settings).rename(world.root / "losing.yaml")
    run = site.start(RUN, recipe=str(recipe))
    wait((world.root / "merging").exists, "the merge")
    assert site.database.drop_connections() > 0
    (world.root / "hold").unlink()
    state = site.end(run)
    assert state["type"] == "COMPLETED", state["message"]
    assert re.findall(r"^ *(\d+) ", site.client("rammerge", "releases", "losing"), re.MULTILINE) == ["1"]

"""Contract: a step that hangs ends its run, within the recipe's time and a grace, and the run's record says so."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import UUID

import pytest

HANGING = """
    import sys, threading
    from pathlib import Path
    from prefect import flow
    from prefect.runtime import flow_run
    from tasks.runtime import limits
    from tasks.runtime.step import Result, step

    @step("hanging", version=1, run_name="hang", result=Result)
    def hanging(out: Path) -> None:
        threading.Event().wait()

    @flow
    def run():
        print(flow_run.id, flush=True)
        hanging.submit().result()

    limits._GRACE_SECONDS = 0.0
    limits.limit_steps("1s")
    run()
"""


@pytest.mark.usefixtures("prefect_api")
def test_a_step_that_hangs_ends_the_process_of_its_run(tmp_path: Path) -> None:
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL

    script = tmp_path / "hanging.py"
    script.write_text(textwrap.dedent(HANGING))
    # As a Prefect worker starts it.
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": "x", "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    sentence = "the step 'hang' took longer than 0:00:01, the recipe's compute.timeout"
    assert (done.returncode, f"error: {sentence}\n" in done.stderr) == (1, True), done.stderr
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(done.stdout.strip())).state
    assert state is not None and (state.name, state.message) == ("TimedOut", sentence)

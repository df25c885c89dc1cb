"""Print the job template of a work pool: Prefect's own for the pool's type, with what `deploy/TYPE.yaml` sets.

`python deploy/job_template.py kubernetes gpu` reads `deploy/kubernetes.yaml`. Prefect itself brings the templates of
all types, so no package but `prefect` is needed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import prefect.server.api
import yaml

TEMPLATES = Path(prefect.server.api.__file__).parent / "collections_data/views/aggregate-worker-metadata.json"
TYPES = ("docker", "kubernetes")


def job_template(kind: str, pool: str) -> dict[str, Any]:
    """Return the template of the pool called `pool` (`cpu` or `gpu`) of a type (`docker` or `kubernetes`)."""
    settings = yaml.safe_load(Path(__file__).with_name(f"{kind}.yaml").read_text(encoding="utf-8"))[pool]
    collections = json.loads(TEMPLATES.read_text(encoding="utf-8"))
    template: dict[str, Any] = collections[f"prefect-{kind}"][kind]["default_base_job_configuration"]
    for name, value in settings["variables"].items():
        template["variables"]["properties"][name]["default"] = value
    if kind == "kubernetes":
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        _add(pod, settings["pod"])
        _add(pod["containers"][0], settings["container"])
    return template


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add the keys of `part` to `whole`, and to the mappings in it."""
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(whole.get(key), dict):
            _add(whole[key], value)
        else:
            whole[key] = value


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TYPES or sys.argv[2] not in ("cpu", "gpu"):
        raise SystemExit("usage: python deploy/job_template.py docker|kubernetes cpu|gpu")
    print(json.dumps(job_template(*sys.argv[1:]), indent=2))

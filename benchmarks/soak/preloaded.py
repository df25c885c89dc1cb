"""What the process that commands are forked from imports, so that 200 runs do not import it 200 times each."""

import gc
from importlib import import_module

from evaluation.runners.harness import preload

gc.disable()
for _name in ("flows.cli.running", "flows.merge_and_evaluate", "mlflow.transformers", "evaluation.report.figures"):
    import_module(_name)
preload()
# A million objects that stay. Otherwise the garbage collector of each command would look at them, and copy their pages.
gc.freeze()
gc.enable()

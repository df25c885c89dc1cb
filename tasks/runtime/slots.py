"""What the steps of one process share: room for one model at a time.

A running model fills the memory (and all cores, where its arithmetic is large). transformers sets torch's default
dtype, which is global to the process, while it builds one, and its lazy imports fail when two threads meet in them. So
the steps that run a model take turns, beside merges, downloads and comparisons, which go on.
"""

import threading

MODEL_SLOT = threading.Lock()

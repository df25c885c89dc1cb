"""The lock that lets one model at a time run in a process.

A running model fills the memory, and a large one all cores. While transformers builds a model it sets torch's default
dtype, which is global to the process, and its lazy imports fail when two threads make them at once. So steps that run a
model take turns. Merges, downloads and comparisons run beside them.
"""

import threading

MODEL_SLOT = threading.Lock()

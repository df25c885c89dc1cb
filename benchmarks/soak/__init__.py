"""Many scheduled runs of a tiny recipe with faults between and during them, and what must hold after each."""

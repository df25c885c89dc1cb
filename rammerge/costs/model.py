"""The cost model: what each stage of merging reads, writes and computes, and how long that takes on given machines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Processor time of a method as a multiple of `ram`'s, which `python -m benchmarks.methods` measured at 0.5 B with three
# agents (docs/performance.md), without the start of the process. Counts of overlap are a stage of their own.
FACTORS: Mapping[str, float] = {
    **dict.fromkeys(("average", "task_arithmetic", "consensus"), 0.8),
    **dict.fromkeys(("ram", "ram_plus", "ram_plus_soft", "linear"), 1.0),
    **dict.fromkeys(("multi_slerp", "karcher", "model_stock"), 1.2),
    "awd": 1.3,
    **dict.fromkeys(("dare", "sce"), 1.5),
    "dare_ties": 1.6,
    **dict.fromkeys(("localize_and_stitch", "ties", "dare_magnitude"), 2.5),
    "ram_ties": 2.8,
    "della": 3.6,
    "breadcrumbs": 3.9,
}
# Methods that spend what they take longer than `ram` on ranking magnitudes, before the merge.
_RANKING = ("ties", "ram_ties", "breadcrumbs", "localize_and_stitch", "dare_magnitude")
# What a step takes besides: its start, and Prefect's records.
STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Speeds:
    """What one machine does in a second; see `rammerge.costs.calibration`.

    Attributes:
        cores: processors that a merge may use.
        read, write: bytes of the disk, without the page cache.
        hashed: bytes by SHA-256 on one core.
        merged: bytes of inputs by `ram` on one core, reading and hashing the output included.
        counted: bytes of inputs when overlap is counted, on one core.
    """

    cores: int
    read: float
    write: float
    hashed: float
    merged: float
    counted: float


@dataclass(frozen=True)
class Site:
    """Machines that merge together.

    Attributes:
        speeds: of each. Its disk may be the machine's own, or its share of a file system.
        workers: how many.
        network: bytes a second of each one's link to a file system that all share; None where disks are local.
        storage: bytes a second that this file system gives to all together, if that is less than all links.
    """

    speeds: Speeds
    workers: int = 1
    network: float | None = None
    storage: float | None = None


@dataclass(frozen=True)
class Merges:
    """What is to be merged.

    Attributes:
        elements: of a model.
        agents: their number, with the members of groups.
        methods: of each variant.
        statistics: reads of all inputs for statistics of the whole model, besides the count of overlap.
        input_size, output_size: bytes of an element.
        parts: in how many parts counting and merging are divided.
        hashed: whether the inputs are hashed already.
    """

    elements: int
    agents: int
    methods: Sequence[str]
    statistics: int = 0
    input_size: int = 2
    output_size: int = 2
    parts: int = 1
    hashed: bool = False

    @property
    def inputs(self) -> int:
        """Bytes of base and agents."""
        return self.elements * self.input_size * (1 + self.agents)

    @property
    def outputs(self) -> int:
        """Bytes of all variants."""
        return self.elements * self.output_size * len(self.methods)


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: what is done.
        read, written: bytes.
        processor: seconds of one core.
        workers: how many machines share it.
    """

    name: str
    read: float
    written: float
    processor: float
    workers: int = 1

    def by_resource(self, site: Site) -> dict[str, float]:
        """Return the seconds that disk, network and processors take. They work side by side."""
        speeds, both = site.speeds, self.read + self.written
        found = {
            "disk": (self.read / speeds.read + self.written / speeds.write) / self.workers,
            "processors": self.processor / (speeds.cores * self.workers),
        }
        if site.network is not None:
            found["network"] = both / (site.network * self.workers)
        if site.storage is not None:
            found["storage"] = both / site.storage
        return found

    def seconds(self, site: Site) -> float:
        """Return how long the stage takes: as long as its slowest resource."""
        return max(self.by_resource(site).values()) + STEP_SECONDS

    def limit(self, site: Site) -> str:
        """Return the slowest resource."""
        found = self.by_resource(site)
        return max(found, key=lambda name: found[name])


def stages(merges: Merges, site: Site) -> list[Stage]:
    """Return what a run does from its sources to finished merges, one after the other.

    Raises:
        KeyError: a method has no factor, because it sees whole matrices or is not rammerge's.
    """
    speeds = site.speeds
    ranking = sum(FACTORS[method] - 1.0 for method in merges.methods if method in _RANKING)
    merging = sum(FACTORS[method] for method in merges.methods) - ranking
    inputs, outputs = merges.inputs, merges.outputs
    together = min(site.workers, merges.parts)
    found = []
    if not merges.hashed:
        base, agents = inputs / (1 + merges.agents), inputs * merges.agents / (1 + merges.agents)
        found += [
            Stage("hash the base", base, 0, base / speeds.hashed),
            Stage("hash the agents", agents, 0, agents / speeds.hashed, min(site.workers, merges.agents)),
        ]
    found.append(Stage("count overlap", inputs, 0, inputs / speeds.counted, together))
    if merges.statistics:
        found.append(Stage("statistics", merges.statistics * inputs, 0, ranking * inputs / speeds.merged, together))
    found.append(Stage("merge", inputs, outputs, merging * inputs / speeds.merged, together))
    if merges.parts > 1:
        found += [
            Stage("check the parts", outputs, 0, outputs / speeds.hashed, together),
            Stage("collect the parts", outputs, 0, outputs / speeds.hashed),
        ]
    return [*found, Stage("keep the models", outputs, 0, outputs / speeds.hashed)]


def total(found: Iterable[Stage], site: Site) -> float:
    """Return the seconds of all stages."""
    return sum(stage.seconds(site) for stage in found)

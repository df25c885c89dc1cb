"""The three domains of the zoo, by name."""

from examples.zoo.domains import code, memory, tool
from examples.zoo.domains.item import Domain, Item, Split, split_of

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (tool.DOMAIN, code.DOMAIN, memory.DOMAIN)}

__all__ = ["DOMAINS", "Domain", "Item", "Split", "split_of"]

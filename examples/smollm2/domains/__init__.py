"""The three domains, by name."""

from examples.smollm2.domains import functions, recall, sums
from examples.smollm2.domains.item import Doc, Domain, split_of

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (recall.DOMAIN, sums.DOMAIN, functions.DOMAIN)}

__all__ = ["DOMAINS", "Doc", "Domain", "split_of"]

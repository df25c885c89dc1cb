"""What every family of agents is merged by: each method untuned, a few more settings, and a search over the rest."""

from typing import Any

# Of each method the setting that counts as untuned: its defaults, or its authors' preset.
UNTUNED: dict[str, dict[str, Any]] = {
    "average": {"method": "average"},
    "task_arithmetic": {"method": "task_arithmetic"},
    "ram": {"method": "ram"},
    "ram_plus": {"method": "ram_plus", "preset": "paper"},
    "ram_plus_soft": {"method": "ram_plus_soft", "preset": "paper"},
    "ties": {"method": "ties", "preset": "paper"},
    "dare": {"method": "dare", "preset": "paper"},
    "breadcrumbs": {"method": "breadcrumbs"},
    "della": {"method": "della"},
    "consensus": {"method": "consensus"},
    "karcher": {"method": "karcher"},
    "awd": {"method": "awd"},
    "tsv_m": {"method": "tsv_m"},
    "iso_c": {"method": "iso_c"},
    "wudi": {"method": "wudi"},
}
# Chosen among on validation, together with the untuned setting and with what the search finds.
MORE: dict[str, dict[str, Any]] = {
    "task_arithmetic-0.3": {"method": "task_arithmetic", "params": {"scale": 0.3}},
    "task_arithmetic-0.5": {"method": "task_arithmetic", "params": {"scale": 0.5}},
    "task_arithmetic-0.75": {"method": "task_arithmetic", "params": {"scale": 0.75}},
    "ram-sum": {"method": "ram", "params": {"shared_exponent": 0.25}},
    "ram_plus-sum": {"method": "ram_plus", "params": {"r": 0.2, "shared_exponent": 0.25}},
    "ties-0.5": {"method": "ties", "params": {"density": 0.5}},
    "dare-0.5": {"method": "dare", "params": {"drop_rate": 0.5}},
}
SEARCH: dict[str, Any] = {
    "methods": {
        "task_arithmetic": {"scale": [0.2, 1.3]},
        "ram_plus": {"r": [0.0, 0.5], "alpha": [0.0, 4.0], "shared_exponent": [0.0, 1.0]},
        "ties": {"density": [0.1, 1.0], "scale": [0.3, 2.0]},
        "dare": {"drop_rate": [0.1, 0.9], "scale": [0.3, 1.2]},
        "karcher": {"scale": [0.5, 3.0]},
        "tsv_m": {"scale": [0.3, 1.5]},
        "iso_c": {"scale": [0.3, 1.5]},
    },
    "trials": 28,
}
# What the search names its winner and its runner-up.
FOUND = ("search-best", "search-second")


def merges() -> list[dict[str, Any]]:
    """Return the recipe's `merges`."""
    return [*({**merge, "name": name} for name, merge in {**UNTUNED, **MORE}.items()), {"search": SEARCH}]

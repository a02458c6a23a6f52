"""What can be read out of a model's states, and whether the model uses it.

    probes.tasks       words in texts with labels, split so that nothing leaks
    probes.features    the states of those words, every depth in one pass
    probes.probe       one task at every depth, with the controls that make a score readable
    probes.map         many tasks, and whether one kind of knowledge lies lower than another
    probes.use         take a probe's directions away, or move a state along them

The functions of a module's own name are imported from there: `from probes.probe import probe`.
"""

import importlib
from typing import Any

_HOMES = {
    "Task": "probes.tasks",
    "Example": "probes.tasks",
    "features_of": "probes.features",
    "ESTIMATORS": "probes.estimators",
    "StructuralProbe": "probes.structural",
    "random_twin": "probes.controls",
    "online_code": "probes.description_length",
    "probe_map": "probes.map",
    "ProbeMap": "probes.map_result",
    "ProbeResult": "probes.probe_result",
    "forget": "probes.use",
    "move": "probes.use",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name where it lives, when it is first asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'probes' has no attribute {name!r}")

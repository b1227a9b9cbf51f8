"""How well a mount is, in one word and as the exit status of ``orionctl status``.

Standard library only: ``orionctl`` judges reports with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: The state of a mount is that of its worst array.
EXIT_CODES = {"healthy": 0, "degraded": 1, "failed": 4}

FAILED_STATES = frozenset({"failed"})
_DEGRADED_STATES = frozenset({"degraded", "resyncing", "rebuilding"})


def exit_code(report: Mapping[str, Any]) -> int:
    """0 if every array is healthy, 4 if one has failed, else 1."""
    return max((int(mount["exit_code"]) for mount in report["mounts"]), default=0)


def narrow(report: Mapping[str, Any], array: str | None) -> dict[str, Any]:
    """*report* with no other array than *array* in the mounts that have one of that name; the rest as it is."""
    mounts = []
    for mount in report["mounts"]:
        only = [entry for entry in mount["arrays"] if entry["name"] == array]
        if only:
            state = worst(entry["state"] for entry in only)
            mount = {**mount, "state": state, "exit_code": EXIT_CODES[state], "arrays": only}
        mounts.append(mount)
    return {**report, "mounts": mounts}


def worst(states: Iterable[str]) -> str:
    """The key of :data:`EXIT_CODES` for arrays in these *states*."""
    found = set(states)
    if found & FAILED_STATES:
        return "failed"
    return "degraded" if found & _DEGRADED_STATES else "healthy"

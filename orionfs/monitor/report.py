"""The report: what ``status``, ``status.json``, ``metrics`` and ``mdstat`` are made of.

A JSON object, schema ``orionfs.status/1``::

    {"schema": "orionfs.status/1", "mounts": [MOUNT, ...]}

    MOUNT   mountpoint spec pid version time started uptime_s read_only state exit_code gauges arrays spares
    ARRAY   name level declared_level part_of state size chunk layout uuid slots dirty read_only degraded
            consistency bitmap policies why effect next job jobs scrub members counters details
    MEMBER  name state kind where slot size write_mostly read_errors write_errors checksum_errors counters details
    JOB     kind state member done total rate eta_s waiting
    SCRUB   kind finished checked mismatches repaired by_rule unreadable places
    PLACE   offset length members repaired by_rule
    BITMAP  chunk chunks dirty_chunks
    SPARE   name state serves size why

``job`` is the one that runs and ``jobs`` those that wait; both count in bytes of each member.  ``slot`` is -1 for
members without one.  ``declared_level`` is what the configuration says where that is another word (raid50), ``part_of``
the array that it says it of.  ``spares`` are those that no array holds.

Sizes are integers of bytes, times RFC 3339.  A daemon reports one mount; ``orionctl status`` may show several.
Keys may be added to this schema, never changed or taken away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orionfs.device import Description
from orionfs.monitor.health import EXIT_CODES, FAILED_STATES, exit_code, worst
from orionfs.monitor.timestamps import rfc3339

__all__ = ["STATUS_SCHEMA", "MountFacts", "build_report", "exit_code"]

STATUS_SCHEMA = "orionfs.status/1"

#: What the members' counters are called, and whose sum decides that something went wrong.
_ERRORS = ("read_errors", "write_errors", "checksum_errors")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountFacts:
    """What a report says of the mount as a whole.  ``gauges`` are further numbers for metrics, by their name."""

    mountpoint: Path
    spec: Path
    pid: int
    version: str
    started_ns: int
    now_ns: int
    read_only: bool = False
    gauges: Mapping[str, float] = field(default_factory=dict)


def build_report(
    mount: MountFacts, descriptions: Sequence[Description], spares: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The report of one mount, from what its devices say of themselves; those that are no arrays are left out.

    *spares* are those that no array holds, as the report has them.
    """
    arrays = [_array(description, mount) for description in descriptions if description.kind == "array"]
    state = worst(array["state"] for array in arrays)
    entry = {
        "mountpoint": str(mount.mountpoint),
        "spec": str(mount.spec),
        "pid": mount.pid,
        "version": mount.version,
        "time": rfc3339(mount.now_ns),
        "started": rfc3339(mount.started_ns),
        "uptime_s": (mount.now_ns - mount.started_ns) // 1_000_000_000,
        "read_only": mount.read_only,
        "state": state,
        "exit_code": EXIT_CODES[state],
        "gauges": dict(mount.gauges),
        "arrays": arrays,
        "spares": [dict(spare) for spare in spares],
    }
    return {"schema": STATUS_SCHEMA, "mounts": [entry]}


def _array(description: Description, mount: MountFacts) -> dict[str, Any]:
    details = dict(description.details)
    members = [_member(child, slot) for slot, child in enumerate(description.children)]
    return {
        "name": description.name,
        "level": details.pop("level", ""),
        "declared_level": details.pop("declared_level", ""),
        "part_of": details.pop("part_of", ""),
        "state": description.state,
        "size": description.geometry.size,
        "chunk": details.pop("chunk", None),
        "layout": details.pop("layout", None),
        "uuid": details.pop("uuid", ""),
        "slots": details.pop("slots", ""),
        "dirty": details.pop("dirty", False),
        "read_only": details.pop("read_only", mount.read_only),
        "degraded": details.pop("degraded", 0),
        "why": _why(list(details.pop("why", [])), members),
        "effect": details.pop("effect", ""),
        "next": details.pop("next", "") or _next(description, members, mount),
        "consistency": details.pop("consistency", ""),
        "bitmap": details.pop("bitmap", None),
        "policies": details.pop("policies", {}),
        "job": details.pop("job", None) or None,
        "jobs": list(details.pop("jobs", [])),
        "scrub": details.pop("scrub", None),
        "members": members,
        "counters": dict(description.counters),
        "details": details,
    }


def _member(description: Description, slot: int) -> dict[str, Any]:
    counters = dict(description.counters)
    inner = description.children[0] if description.children else None
    return {
        "name": description.name,
        "state": description.state,
        "kind": inner.kind if inner else description.kind,
        "where": description.where or (f"{inner.kind} {inner.name}" if inner else ""),
        "slot": description.details.get("slot", slot),
        "size": description.geometry.size,
        "write_mostly": bool(description.details.get("write_mostly", False)),
        **{name: int(counters.pop(name, 0)) for name in _ERRORS},
        "counters": counters,
        "details": {key: value for key, value in description.details.items() if key not in ("slot", "write_mostly")},
    }


def _why(given: list[str], members: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reasons of the array itself, and one for members whose errors nothing else has explained."""
    erring = [member["name"] for member in members if member["state"] == "active" and _error_count(member)]
    if erring and not given:
        noun = "member" if len(erring) == 1 else "members"
        given.append(f"{noun} {', '.join(erring)} returned errors that the array could mend or refuse")
    return given


def _error_count(member: Mapping[str, Any]) -> int:
    return sum(member[name] for name in _ERRORS)


def _next(description: Description, members: Sequence[Mapping[str, Any]], mount: MountFacts) -> str:
    """The command to run when the array itself names none."""
    name = description.name
    again = f"orionctl array stop {name}  and  orionctl array assemble {name}"
    absent = [member["name"] for member in members if member["state"] == "missing"]
    if description.state in FAILED_STATES:
        return f"see what happened with  orionctl events --mount {mount.mountpoint}  ; mend it, then  {again}"
    if absent:
        return f"bring {', '.join(absent)} back, then  {again}"
    retired = next((member["name"] for member in members if member["state"] in ("failed", "replaced")), "")
    if retired:
        return f"orionctl array remove {name} {retired}"
    if any(_error_count(member) for member in members):
        return f"orionctl events --mount {mount.mountpoint}  ; then  orionctl array clear {name}"
    return ""

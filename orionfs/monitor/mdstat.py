"""The report in the shape of ``/proc/mdstat``, for eyes and scripts that know that one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orionfs.units import KIB

_PERSONALITIES = ("linear", "raid0", "raid1", "raid5")
_ALGORITHMS = {
    "left-asymmetric": 0,
    "right-asymmetric": 1,
    "left-symmetric": 2,
    "right-symmetric": 3,
    "parity-first": 4,
    "parity-last": 5,
}
_MARKS = {"failed": "(F)", "stale": "(F)"}
_BAR_CELLS = 20


def render(report: Mapping[str, Any]) -> str:
    """The text of *report* (schema orionfs.status/1)."""
    lines = ["Personalities : " + " ".join(f"[{name}]" for name in _PERSONALITIES)]
    for mount in report["mounts"]:
        for array in mount["arrays"]:
            lines += [*_array(array), ""]
    lines.append("unused devices: <none>")
    return "\n".join(lines) + "\n"


def _array(array: Mapping[str, Any]) -> list[str]:
    activity = "inactive" if array["state"] == "failed" else "active"
    mode = " (read-only)" if array["read_only"] else ""
    present = [member for member in array["members"] if member["state"] != "missing"]
    members = " ".join(
        f"{member['name']}[{member['slot']}]{_MARKS.get(member['state'], '')}" for member in reversed(present)
    )
    lines = [f"{array['name']} : {activity}{mode} {array['level']} {members}".rstrip()]
    shape = [f"      {array['size'] // KIB} blocks super 1.2"]
    if array["level"] == "raid5":
        algorithm = _ALGORITHMS.get(array["layout"] or "", 2)
        shape.append(f"level 5, {(array['chunk'] or 0) // KIB}k chunk, algorithm {algorithm}")
    elif array["chunk"]:
        shape.append(f"{array['chunk'] // KIB}k chunks")
    if array["level"] in ("raid1", "raid5"):
        total = len(array["members"])
        shape.append(f"[{total}/{total - array['degraded']}] [{array['slots']}]")
    lines.append(" ".join(shape))
    if array["job"]:
        lines.append(_job(array["job"]))
    return lines


def _job(job: Mapping[str, Any]) -> str:
    done, total = job["done"] // KIB, max(job["total"] // KIB, 1)
    share = min(done / total, 1.0)
    cells = int(share * _BAR_CELLS)
    bar = "=" * cells + ">" + "." * (_BAR_CELLS - cells)
    minutes = (job.get("eta_s") or 0) / 60
    speed = int(job.get("rate") or 0) // KIB
    text = f"      [{bar}]  {job['kind']} = {100 * share:.1f}% ({done}/{total})"
    return f"{text} finish={minutes:.1f}min speed={speed}K/sec"

"""The report in the shape of ``/proc/mdstat``, for eyes and scripts that know that one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orionfs.units import KIB

_PERSONALITIES = ("linear", "raid0", "raid1", "raid6", "raid5", "raid4", "raid10")
_PARITY = {"raid4": 4, "raid5": 5, "raid6": 6}
_ALGORITHMS = {
    "left-asymmetric": 0,
    "right-asymmetric": 1,
    "left-symmetric": 2,
    "right-symmetric": 3,
    "parity-first": 4,
    "parity-last": 5,
    "ddf-zero-restart": 8,
    "ddf-N-restart": 9,
    "ddf-N-continue": 10,
    "left-asymmetric-6": 16,
    "right-asymmetric-6": 17,
    "left-symmetric-6": 18,
    "right-symmetric-6": 19,
    "parity-first-6": 20,
}
_MARKS = {"failed": "(F)", "stale": "(F)", "replaced": "(F)", "spare": "(S)", "replacing": "(R)"}
#: What the kernel calls a job.
_KINDS = {"recovery": "recovery", "replacement": "recovery", "check": "check", "repair": "resync", "resync": "resync"}
_PAGE = 4096
_BAR_CELLS = 20


def render(report: Mapping[str, Any]) -> str:
    """The text of *report* (schema orionfs.status/1)."""
    lines = ["Personalities : " + " ".join(f"[{name}]" for name in _PERSONALITIES)]
    for mount in report["mounts"]:
        for array in mount["arrays"]:
            if array["state"] != "stopped" and array["level"] != "jbod":
                lines += [*_array(array), ""]
    idle = [spare["name"] for mount in report["mounts"] for spare in mount["spares"] if spare["state"] == "idle"]
    lines.append(f"unused devices: {' '.join(idle) if idle else '<none>'}")
    return "\n".join(lines) + "\n"


def _array(array: Mapping[str, Any]) -> list[str]:
    activity = "inactive" if array["state"] == "failed" else "active"
    mode = " (read-only)" if array["read_only"] else ""
    present = [member for member in array["members"] if member["state"] != "missing"]
    numbers = _numbers(array["members"])
    members = " ".join(f"{member['name']}[{numbers[id(member)]}]{_marks(member)}" for member in reversed(present))
    lines = [f"{array['name']} : {activity}{mode} {array['level']} {members}".rstrip(), _shape(array)]
    if array["job"]:
        lines.append(_job(array["job"]))
    lines += [f"      {_KINDS.get(job['kind'], job['kind'])}=DELAYED" for job in array["jobs"]]
    if array["bitmap"]:
        lines.append(_bitmap(array["bitmap"]))
    return lines


def _numbers(members: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """A number for each member: its slot, and the next free ones for those that have none or share one."""
    numbers: dict[int, int] = {}
    following = max((member["slot"] for member in members), default=-1) + 1
    taken = set()
    for member in members:
        number = member["slot"]
        if number < 0 or number in taken:
            number, following = following, following + 1
        taken.add(number)
        numbers[id(member)] = number
    return numbers


def _marks(member: Mapping[str, Any]) -> str:
    return ("(W)" if member["write_mostly"] else "") + _MARKS.get(member["state"], "")


def _shape(array: Mapping[str, Any]) -> str:
    """The line that tells the geometry, as the personality of the kernel writes it."""
    level, chunk = array["level"], (array["chunk"] or 0) // KIB
    shape = [f"      {array['size'] // KIB} blocks super 1.2"]
    if level in _PARITY:
        algorithm = _ALGORITHMS.get(array["layout"] or "", 0 if level == "raid4" else 2)
        shape.append(f"level {_PARITY[level]}, {chunk}k chunk, algorithm {algorithm}")
    elif level == "raid10":
        shape.append(f"{chunk}K chunks {_copies(array['layout'] or '')}")
    elif chunk:
        shape.append(f"{chunk}k chunks")
    if level in _PARITY or level in ("raid1", "raid10"):
        total = len(array["slots"])
        shape.append(f"[{total}/{total - array['degraded']}] [{array['slots']}]")
    return " ".join(shape)


def _copies(layout: str) -> str:
    """``n2`` as ``2 near-copies``."""
    noun = {"n": "near", "f": "far", "o": "offset"}.get(layout[:1], "near")
    return f"{layout[1:] or 2} {noun}-copies"


def _bitmap(bitmap: Mapping[str, Any]) -> str:
    """How many pages of 16-bit counters the kernel would keep for it, and how many are in use."""
    pages = -(-bitmap["chunks"] * 2 // _PAGE)
    used = min(bitmap["dirty_chunks"], pages)
    return f"      bitmap: {used}/{pages} pages [{used * _PAGE // KIB}KB], {bitmap['chunk'] // KIB}KB chunk"


def _job(job: Mapping[str, Any]) -> str:
    done, total = job["done"] // KIB, max(job["total"] // KIB, 1)
    kind = _KINDS.get(job["kind"], job["kind"])
    if job.get("state") == "paused":
        return f"      {kind}=PENDING"
    share = min(done / total, 1.0)
    cells = int(share * _BAR_CELLS)
    bar = "=" * cells + ">" + "." * (_BAR_CELLS - cells)
    minutes = (job.get("eta_s") or 0) / 60
    speed = int(job.get("rate") or 0) // KIB
    return f"      [{bar}]  {kind} ={100 * share:5.1f}% ({done}/{total}) finish={minutes:.1f}min speed={speed}K/sec"

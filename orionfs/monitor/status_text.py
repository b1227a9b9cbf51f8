"""The report for people, after ``zpool status``: state, why, effect, next, the job and a table of members.

Imports the standard library and units only: ``orionctl`` renders with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orionfs.units import format_duration, format_rate, format_size

_COLORS = {"good": "32", "warn": "33", "bad": "31", "bold": "1"}
_GOOD_STATES = frozenset({"clean", "active", "healthy"})
_BAD_STATES = frozenset({"failed", "missing"})
_BAR_CELLS = 20


def render(report: Mapping[str, Any], color: bool = False) -> str:
    """The text of *report* (schema orionfs.status/1), ending with a line end; *color* adds terminal colors."""
    paint = _Paint(color)
    parts = [_mount(mount, paint) for mount in report["mounts"]]
    return "\n".join(parts)


class _Paint:
    """Puts terminal colors around words, or does not."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, how: str) -> str:
        return f"\x1b[{_COLORS[how]}m{text}\x1b[0m" if self._color else text

    def state(self, state: str, width: int = 0) -> str:
        how = "good" if state in _GOOD_STATES else "bad" if state in _BAD_STATES else "warn"
        return self(state, how) + " " * (width - len(state))


def _mount(mount: Mapping[str, Any], paint: _Paint) -> str:
    mode = "  read-only" if mount["read_only"] else ""
    lines = [
        f"mount {paint(plain(mount['mountpoint']), 'bold')}: {paint.state(mount['state'])}{mode}"
        f"   from {plain(mount['spec'])}   pid {mount['pid']}   up {format_duration(mount['uptime_s'])}"
    ]
    for array in mount["arrays"]:
        lines += ["", *_array(array, paint)]
    if not mount["arrays"]:
        lines += ["", "no arrays"]
    return "\n".join(lines) + "\n"


def _array(array: Mapping[str, Any], paint: _Paint) -> list[str]:
    lines = [_headline(array, paint)]
    for position, reason in enumerate(array["why"]):
        lines.append(f"  {'why:' if position == 0 else '':<8}{plain(reason)}")
    for key in ("effect", "next"):
        if array[key]:
            lines.append(f"  {key + ':':<8}{plain(array[key])}")
    if array["job"]:
        lines.append(f"  job:    {job_line(array['job'])}")
    return lines + _member_table(array["members"], paint)


def _headline(array: Mapping[str, Any], paint: _Paint) -> str:
    state = array["state"]
    facts = [array["level"], f"{format_size(array['size'])} usable"]
    if array["chunk"]:
        facts.append(f"chunk {format_size(array['chunk'])}")
    if array["layout"]:
        facts.append(array["layout"])
    if array["slots"]:
        facts.append(f"[{array['slots']}]")
    if array["read_only"]:
        facts.append("read-only")
    how = "good" if state in _GOOD_STATES else "bad" if state in _BAD_STATES else "warn"
    return f"array {paint(plain(array['name']), 'bold')}: {paint(state.upper(), how)}   {'  '.join(facts)}"


def job_line(job: Mapping[str, Any]) -> str:
    """A job with its bar: ``resync  ━━━━━╸────  52.1%  1.1 GiB of 2 GiB  182 MiB/s  ETA 5s``."""
    done, total = job["done"], job["total"]
    share = min(done / total, 1.0) if total else 1.0
    parts = [job["kind"], bar(share), f"{100 * share:.1f}%", f"{format_size(done)} of {format_size(total)}"]
    if job.get("rate"):
        parts.append(format_rate(job["rate"]))
    if job.get("eta_s") is not None:
        parts.append(f"ETA {format_duration(job['eta_s'])}")
    return "  ".join(parts)


def bar(share: float) -> str:
    """A bar of fixed width for *share*, 0 to 1."""
    halves = int(share * _BAR_CELLS * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return done + "─" * (_BAR_CELLS - len(done))


def _member_table(members: Sequence[Mapping[str, Any]], paint: _Paint) -> list[str]:
    rows = [
        [plain(member["name"]), member["state"]]
        + [_count(member[f"{error}_errors"]) for error in ("read", "write", "checksum")]
        + [plain(member["where"])]
        for member in members
    ]
    name_width = max([6, *(len(row[0]) for row in rows)])
    state_width = max([8, *(len(row[1]) for row in rows)])
    lines = [f"  {'MEMBER':<{name_width}}  {'STATE':<{state_width}}  READ WRITE CKSUM  WHERE"]
    for name, state, read, write, checksum, where in rows:
        state = paint.state(state, state_width)
        lines.append(f"  {name:<{name_width}}  {state}  {read:>4} {write:>5} {checksum:>5}  {where}".rstrip())
    return lines


def _count(number: int) -> str:
    """*number* in at most four characters, as zpool shows error counters."""
    if number < 10_000:
        return str(number)
    for unit in "KMGTP":
        number //= 1000
        if number < 1000:
            return f"{number}{unit}"
    return "many"


def plain(text: str) -> str:
    """*text* fit for a terminal: a file name must not be able to move the cursor."""
    return "".join(character if character.isprintable() else "?" for character in str(text))

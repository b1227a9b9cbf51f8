"""The report for people, after ``zpool status``: state, why, effect, next, the job and a table of members.

Imports the standard library and units only: ``orionctl`` renders with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orionfs.units import format_duration, format_rate, format_size

_COLORS = {"good": "32", "warn": "33", "bad": "31", "bold": "1"}
_GOOD_STATES = frozenset({"clean", "active", "healthy", "spare", "idle"})
_BAD_STATES = frozenset({"failed", "missing"})
_BAR_CELLS = 20
#: How many places of a scrub are listed; all of them are in ``orionctl array show``.
_PLACES = 3


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
        word = state.partition(",")[0]
        how = "good" if word in _GOOD_STATES else "bad" if word in _BAD_STATES else "warn"
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
    if mount["spares"]:
        lines += ["", *_spare_table(mount["spares"], paint)]
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
    if array["jobs"]:
        lines.append(f"  queue:  {', '.join(job_name(job) for job in array['jobs'])}")
    if array["scrub"]:
        lines += _scrub(array["scrub"])
    return lines + (_member_table(array["members"], paint) if array["members"] else [])


def _headline(array: Mapping[str, Any], paint: _Paint) -> str:
    state = array["state"]
    facts = [array["declared_level"] or array["level"], f"{format_size(array['size'])} usable"]
    if array["chunk"]:
        facts.append(f"chunk {format_size(array['chunk'])}")
    if array["layout"]:
        facts.append(array["layout"])
    if array["slots"]:
        facts.append(f"[{array['slots']}]")
    if array["consistency"] in ("journal", "ppl"):
        facts.append(array["consistency"])
    if array["bitmap"]:
        facts.append("bitmap")
    if array["read_only"]:
        facts.append("read-only")
    how = "good" if state in _GOOD_STATES else "bad" if state in _BAD_STATES else "warn"
    return f"array {paint(plain(array['name']), 'bold')}: {paint(state.upper(), how)}   {'  '.join(facts)}"


def job_name(job: Mapping[str, Any]) -> str:
    """What a job is called: ``check``, ``recovery of members/s0.img``."""
    member = job.get("member")
    return f"{job['kind']} of {plain(member)}" if member else str(job["kind"])


def job_line(job: Mapping[str, Any]) -> str:
    """A job with its bar: ``resync  ━━━━━╸────  52.1%  1.1 GiB of 2 GiB  182 MiB/s  ETA 5s``."""
    done, total = job["done"], job["total"]
    share = min(done / total, 1.0) if total else 1.0
    parts = [job_name(job), bar(share), f"{100 * share:.1f}%", f"{format_size(done)} of {format_size(total)}"]
    state = job.get("state", "running")
    if state != "running":
        parts.append(state)
    elif job.get("rate"):
        parts.append(format_rate(job["rate"]))
    if job.get("eta_s") is not None:
        parts.append(f"ETA {format_duration(job['eta_s'])}")
    if job.get("waiting"):
        parts.append(plain(job["waiting"]))
    return "  ".join(parts)


def scrub_line(scrub: Mapping[str, Any]) -> str:
    """What a scrub has found: ``check done, 1 GiB of each member: 3 mismatches, 0 repaired``."""
    ended = "done" if scrub["finished"] else "not finished"
    found = [f"{scrub['mismatches']} mismatch{'' if scrub['mismatches'] == 1 else 'es'}"]
    if scrub["mismatches"]:
        found.append(f"{scrub['repaired']} repaired")
    if scrub["by_rule"]:
        found.append(f"{scrub['by_rule']} of them by the level's rule, as nobody can tell which side is right")
    if scrub["unreadable"]:
        found.append(f"{scrub['unreadable']} stripes could not be compared")
    return f"{scrub['kind']} {ended}, {format_size(scrub['checked'])} of each member: {', '.join(found)}"


def place_line(place: Mapping[str, Any]) -> str:
    """One place that did not agree: ``4 KiB at 65536 of members/d2.img: repaired``."""
    who = ", ".join(plain(member) for member in place["members"]) or "some member, nobody can tell which"
    ended = (
        ("repaired by the level's rule" if place["by_rule"] else "repaired") if place["repaired"] else "not repaired"
    )
    return f"{format_size(place['length'])} at {place['offset']} of {who}: {ended}"


def _scrub(scrub: Mapping[str, Any]) -> list[str]:
    lines = [f"  scrub:  {scrub_line(scrub)}"]
    lines += [f"          {place_line(place)}" for place in scrub["places"][:_PLACES]]
    rest = scrub["mismatches"] - len(scrub["places"][:_PLACES])
    return [*lines, f"          and {rest} more"] if rest > 0 else lines


def bar(share: float) -> str:
    """A bar of fixed width for *share*, 0 to 1."""
    halves = int(share * _BAR_CELLS * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return done + "─" * (_BAR_CELLS - len(done))


def _member_table(members: Sequence[Mapping[str, Any]], paint: _Paint) -> list[str]:
    rows = [
        [plain(member["name"]), _member_state(member)]
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


def _member_state(member: Mapping[str, Any]) -> str:
    return f"{member['state']}, write-mostly" if member["write_mostly"] else str(member["state"])


def _spare_table(spares: Sequence[Mapping[str, Any]], paint: _Paint) -> list[str]:
    """The spares that no array holds, and for which they are."""
    width = max([5, *(len(plain(spare["name"])) for spare in spares)])
    lines = [f"{'SPARE':<{width}}  STATE        FOR"]
    for spare in spares:
        name, serves = plain(spare["name"]), plain(", ".join(spare["serves"])) or "no array"
        why = f": {plain(spare['why'])}" if spare["why"] else ""
        lines.append(f"{name:<{width}}  {paint.state(spare['state'], 11)}  {serves}{why}")
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

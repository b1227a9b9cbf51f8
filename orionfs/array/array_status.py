"""What an array says of itself: its state in a word, why, what that means, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orionfs.array.superblock import format_uuid
from orionfs.units import SECTOR, format_size

if TYPE_CHECKING:
    from orionfs.array.array import Array


def state_of(array: Array) -> str:
    """One word: failed, degraded, rebuilding, resyncing, replacing, active (written to lately) or clean.

    Without redundancy an array is degraded as soon as a member has failed a request.
    """
    if array.failed:
        return "failed"
    slots = array.roster.slots
    if not all(member.active for member in slots) or _unanswered(array):
        filled = all(member.active or member.state == "rebuilding" for member in slots)
        return "rebuilding" if filled and not _unanswered(array) else "degraded"
    if array.engine.sync.needed:
        return "resyncing"
    if next(array.roster.copies(), None) is not None:
        return "replacing"
    return "clean" if array.is_clean or not array.engine.redundant else "active"


def describe_details(array: Array) -> dict[str, Any]:
    """The ``details`` of an array's description."""
    engine, md, roster = array.engine, array.freshest, array.roster
    labels = [member.label for member in roster.slots]
    degraded = len(roster.gone())
    return {
        "level": array.level.name,
        "layout": array.level.layout_name(md.layout) if len(array.level.layouts) > 1 else "",
        "chunk": md.chunksize * SECTOR,
        "uuid": format_uuid(array.uuid),
        "md_name": md.set_name,
        "slots": "".join("U" if member.active else "_" for member in roster.slots),
        "degraded": degraded,
        "spares": len(roster.spares),
        "dirty": not array.is_clean if engine.redundant else False,
        "read_only": array.read_only,
        "events": array.superblocks.events,
        "consistency": array.log.noun if array.log is not None else "resync" if engine.redundant else "",
        "bitmap": array.bitmap.describe() if array.bitmap is not None else None,
        "policies": asdict(array.policies),
        "why": _why(array),
        "effect": _effect(array),
        "next": _next(array),
        "full_stripe_writes": engine.full_stripe_writes,
        "partial_stripe_writes": engine.partial_stripe_writes,
        "stripe_reads": engine.stripe_reads,
        "suspect_units": len(engine.sync.suspects),
        "job": array.background.describe_job(),
        "jobs": array.background.describe_queue(),
        "scrub": array.background.describe_scrub(labels),
    }


def _unanswered(array: Array) -> list[str]:
    """What members without a stand-in have failed to do."""
    if array.engine.redundant:
        return []
    return [
        f"{member.label}: {member.counters.read_errors} reads and {member.counters.write_errors} writes failed,"
        " and nothing can stand in for it"
        for member in array.roster.slots
        if member.counters.read_errors or member.counters.write_errors
    ]


def _why(array: Array) -> list[str]:
    reasons = [array.failed] if array.failed else []
    reasons += _unanswered(array)
    for member in array.roster.slots:
        if member.state == "rebuilding":
            reasons.append(f"{member.label} is being rebuilt in slot {member.slot}")
        elif not member.active:
            reasons.append(f"{member.label}: {member.why}")
        if member.copy is not None:
            reasons.append(f"{member.label} is being replaced by {member.copy.label}")
    if array.engine.sync.needed and not array.failed:
        trouble = array.background.resync.trouble
        reasons.append(trouble or "redundancy is being proven after an unclean stop or a failed write")
    found = array.background.describe_scrub([])
    if found is not None and found["mismatches"] > found["repaired"]:
        reasons.append(f"a {found['kind']} has found {found['mismatches']} places that do not agree")
    return reasons + list(array.notices)


def _effect(array: Array) -> str:
    if array.failed:
        return "no writes; reads work where the data can still be had"
    degraded, sync = len(array.roster.gone()), array.engine.sync
    if not degraded and not sync.needed:
        return "what lies on that member may be unreadable" if _unanswered(array) else ""
    left = array.level.margin(array.freshest.layout, len(array.roster.slots), array.roster.gone())
    use = "readable" if array.read_only else "readable and writable"
    if sync.needed and not sync.believed and array.level.has_parity:
        return f"{use}; {format_size(sync.checkpoint())} of each member are proven so far"
    if left > 0:
        return f"{use}; survives {left} more failure{'' if left == 1 else 's'}"
    return f"{use}; no redundancy left"


def _next(array: Array) -> str:
    name = array.name
    if array.failed:
        again = f"orionctl array stop {name}  and  orionctl array assemble {name}"
        return f"bring the members back unchanged, then  {again}  (--force if it is dirty and degraded)"
    vacant = [m for m in array.roster.slots if not m.active and m.state != "rebuilding"]
    if vacant and not array.engine.redundant:
        return ""
    if vacant and array.read_only:
        return "mount it for writing to rebuild"
    if vacant and array.roster.spares and array.policies.spare_policy == "manual":
        return f"orionctl array set {name} spare_policy=auto"
    if vacant:
        known = [member for member in vacant if not member.label.startswith("slot ")]
        if not known:
            return f"orionctl array add {name} members/new.img"
        missing = [member.label for member in known if member.state == "missing"]
        replace = f"orionctl array replace {name} {known[0].label} members/new.img"
        return f"bring {', '.join(missing)} back, or  {replace}" if missing else replace
    found = array.background.describe_scrub([])
    if found is not None and found["kind"] == "check" and found["mismatches"]:
        return f"orionctl array repair {name}"
    return ""

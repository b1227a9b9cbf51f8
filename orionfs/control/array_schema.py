"""The verbs that change arrays, as data.

``array`` is the name of an array; of one that is made of groups it stands for all of them.  ``member`` is what the
configuration calls a member, the last part of that, or its slot.  With ``dry_run`` everything is checked that can be
without changing anything, and the answer tells what would be done.

Each answers ``{"schema": "orionfs.VERB/1", "array": NAME, "done": [SENTENCE, ...], "next": TEXT}``.
"""

from __future__ import annotations

from orionfs.control.verb import Argument, Verb

_ARRAY = Argument("array", "text", required=True)
_MEMBER = Argument("member", "text", required=True)
_FORCE = Argument("force", "flag")
_DRY_RUN = Argument("dry_run", "flag")


def _changing(name: str, summary: str, *arguments: Argument) -> Verb:
    return Verb(name, summary, (*arguments, _DRY_RUN), changes=True)


ARRAY_VERBS: tuple[Verb, ...] = (
    _changing(
        "array.create",
        "Declare an array, make what is missing of it, and assemble it.",
        Argument("name", "text", required=True),
        Argument("level", "text", required=True),
        Argument("members", "texts", required=True),
        Argument("spares", "texts"),
        Argument("write_mostly", "texts"),
        Argument("chunk", "count"),
        Argument("layout", "text"),
        Argument("member_size", "count"),
        Argument("groups", "count"),
        Argument("consistency", "text"),
        Argument("bitmap", "flag"),
        Argument("policies", "texts"),
    ),
    _changing("array.assemble", "Start an array that was stopped, as the configuration now has it.", _ARRAY, _FORCE),
    _changing(
        "array.stop",
        "Close an array and free its members; 'forget' takes it out of the configuration, too.",
        _ARRAY,
        _FORCE,
        Argument("forget", "flag"),
    ),
    _changing("array.add", "Make devices spares.", _ARRAY, Argument("devices", "texts", required=True), _FORCE),
    _changing("array.fail", "Take a member out of service.", _ARRAY, _MEMBER),
    _changing("array.remove", "Forget a failed member or a spare.", _ARRAY, _MEMBER),
    _changing(
        "array.replace",
        "Copy a member onto a spare, or onto the new device 'by', which takes its place.",
        _ARRAY,
        _MEMBER,
        Argument("by", "text"),
        _FORCE,
    ),
    _changing("array.readd", "Take a former member back.", _ARRAY, _MEMBER),
    _changing("array.clear", "Forget the error counters of a member, or of all.", _ARRAY, Argument("member", "text")),
    _changing("array.scrub", "Queue a job: check or repair.", _ARRAY, Argument("kind", "text", required=True)),
    _changing("array.pause", "Let background jobs wait.", _ARRAY),
    _changing("array.resume", "Let them go on.", _ARRAY),
    _changing("array.cancel", "Forget the checks and repairs that were asked for.", _ARRAY),
    _changing(
        "array.set",
        "Change policies, now and in the configuration: each a text like read_policy=nearest.",
        _ARRAY,
        Argument("policies", "texts", required=True),
    ),
    _changing("spare.add", "Make devices spares of all arrays.", Argument("devices", "texts", required=True)),
    _changing("spare.remove", "Forget a spare that no array holds.", Argument("device", "text", required=True)),
)

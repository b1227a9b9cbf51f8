"""The verbs of the control socket and their arguments, as data.  Server, client and documentation read this table.

One JSON object per line, in both directions::

    {"verb": "show", "arguments": {"object": "vault"}}
    {"ok": true, "result": ...}
    {"ok": false, "error": {"kind": "NotFound", "message": ..., "hint": ..., "exit_code": 3}}

A connection may carry any number of requests, one after the other.
"""

from __future__ import annotations

import json
from typing import Any

from orionfs.control.array_schema import ARRAY_VERBS
from orionfs.control.verb import MAX_TEXT, MAX_TEXTS, Argument, Verb
from orionfs.errors import UsageError

#: The longest request, in bytes with its line end.
MAX_REQUEST = 64 * 1024
#: The longest answer that a client takes.
MAX_ANSWER = 64 * 1024 * 1024
#: The longest that ``events`` waits for something to happen.
MAX_WAIT_S = 60

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("ping", "Whether the daemon answers: its pid and version."),
        Verb("status", "The report: orionfs.status/1."),
        Verb("list", "The objects of the mount: orionfs.list/1."),
        Verb("show", "One object in full: orionfs.show/1.", (Argument("object", "text", required=True),)),
        Verb(
            "events",
            "The events after 'since'; with 'wait_s', not before there is one or the time is up: orionfs.events/1.",
            (Argument("since", "count"), Argument("wait_s", "count", most=MAX_WAIT_S)),
        ),
        Verb("metrics", "Prometheus text."),
        Verb("config", "The text of the configuration as the daemon has read it last."),
        *ARRAY_VERBS,
    )
}


def parse_request(line: bytes) -> tuple[Verb, dict[str, Any]]:
    """The verb and the arguments in one line of input, which may be anything.

    Raises :class:`~orionfs.errors.UsageError` with one sentence.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("the request is not a line of JSON", hint=_SHAPE) from error
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
        raise UsageError("the request is not an object with a verb", hint=_SHAPE)
    verb = VERBS.get(request["verb"])
    if verb is None:
        raise UsageError(f"there is no verb {request['verb'][:40]!r}", hint=f"there is: {', '.join(VERBS)}")
    unknown = sorted(set(request) - {"verb", "arguments"})
    if unknown:
        raise UsageError(f"the request has an unknown key {unknown[0][:40]!r}", hint=_SHAPE)
    arguments = request.get("arguments", {})
    if not isinstance(arguments, dict):
        raise UsageError("the arguments are not an object", hint=_SHAPE)
    check_arguments(verb, arguments)
    return verb, arguments


def check_arguments(verb: Verb, arguments: dict[str, Any]) -> None:
    """Raise :class:`~orionfs.errors.UsageError` unless *arguments* are what *verb* takes."""
    declared = {argument.name: argument for argument in verb.arguments}
    for name, value in arguments.items():
        argument = declared.get(name)
        if argument is None:
            takes = f"it takes: {', '.join(declared)}" if declared else "it takes none"
            raise UsageError(f"{verb.name} has no argument {name[:40]!r}", hint=takes)
        _check_value(verb, argument, value)
    for argument in verb.arguments:
        if argument.required and argument.name not in arguments:
            raise UsageError(f"{verb.name} needs the argument {argument.name!r}")


def _check_value(verb: Verb, argument: Argument, value: object) -> None:
    what = f"{verb.name}: {argument.name} must be"
    match argument.kind:
        case "text":
            if not _is_text(value):
                raise UsageError(f"{what} a text of at most {MAX_TEXT} characters")
        case "texts":
            if not isinstance(value, list) or len(value) > MAX_TEXTS or not all(_is_text(item) for item in value):
                raise UsageError(f"{what} a list of at most {MAX_TEXTS} texts of at most {MAX_TEXT} characters")
        case "flag":
            if not isinstance(value, bool):
                raise UsageError(f"{what} true or false")
        case "count":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= argument.most:
                raise UsageError(f"{what} a whole number from 0 to {argument.most}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


_SHAPE = 'send one line such as {"verb": "status", "arguments": {}}'

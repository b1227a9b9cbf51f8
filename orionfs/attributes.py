"""Attributes of device files (mode, owner, group, times) and the small file that keeps them across mounts.

The file is ``state/attributes.json`` beside the spec::

    {"schema": "orionfs.attributes/1",
     "objects": {"arrays/vault": {"mode": 416, "uid": 0, "gid": 6,
                                  "atime_ns": …, "mtime_ns": …, "ctime_ns": …,
                                  "configured": {"mode": 384, "uid": 0, "gid": 0}}}}

``configured`` is what the configuration said when the object was last saved.  A mode, owner or group that the
configuration has changed since then is the newer statement and wins over the stored one; otherwise chmod and chown win.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from orionfs.environment import Environment
from orionfs.errors import OrionError, Refused, from_oserror
from orionfs.monitor.events import EventLog

SCHEMA = "orionfs.attributes/1"

#: The fields that the configuration can set, and those that only happen.
_CONFIGURABLE = ("mode", "uid", "gid")
_TIMES = ("atime_ns", "mtime_ns", "ctime_ns")


@dataclass(slots=True)
class Attributes:
    """What stat(2) says of a device file beyond its size.

    ``mode`` holds the permission bits alone.  Times are nanoseconds since 1970.  Changed in place, on the event loop.
    """

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


@dataclass(slots=True)
class _Record:
    """One object of this mount: its attributes, what they were at first, and what the configuration says."""

    attributes: Attributes
    initial: Attributes
    configured: dict[str, int]


class AttributeStore:
    """Attributes by object key (``arrays/vault``).

    Nothing is written before something differs from what the file and the configuration say, so that a mount that is
    only read needs no writable folder.  Objects in the file that this mount does not have are kept.
    """

    def __init__(self, path: Path, environment: Environment) -> None:
        self._path = path
        self._environment = environment
        self._worker = environment.threads.worker("attributes")
        self._saving = trio.Lock()
        self._stored: dict[str, dict[str, Any]] = {}
        self._records: dict[str, _Record] = {}
        self._refusal: OrionError | None = None

    @classmethod
    async def open(cls, path: Path, *, environment: Environment, events: EventLog) -> AttributeStore:
        """Read *path*; a file that is not there is an empty one.

        A damaged file never stops a mount: it is copied aside, an event says so, and defaults are used.  One that
        cannot be read, or not be copied aside, is left alone: :meth:`save` then refuses to overwrite it.
        """
        store = cls(path, environment)
        try:
            raw = await store._worker.run(environment.hostfs.read, path)
        except FileNotFoundError:
            return store
        except OSError as error:
            cause = from_oserror(error, f"read {path}")
            events.emit("attributes.unreadable", str(path), f"{cause}; defaults are used", severity="warning")
            store._refusal = Refused(f"{path} could not be read when it was opened, so it is not overwritten")
            return store
        try:
            store._stored = _parse(raw)
        except (ValueError, RecursionError) as error:
            await store._set_aside(raw, str(error), events)
        return store

    def get(self, key: str, *, mode: int, uid: int, gid: int) -> Attributes:
        """The attributes of object *key*; *mode*, *uid* and *gid* are what the configuration says.

        Always the same record for one key: whoever changes it in place changes it for everybody.  An object that the
        file does not know begins with the present time.
        """
        record = self._records.get(key)
        if record is not None:
            return record.attributes
        configured = {"mode": mode, "uid": uid, "gid": gid}
        stored = self._stored.get(key)
        now = self._environment.clock.wall_ns()
        attributes = Attributes(mode, uid, gid, now, now, now)
        if stored is not None:
            for name in _CONFIGURABLE:
                if stored["configured"][name] == configured[name]:
                    setattr(attributes, name, stored[name])
            for name in _TIMES:
                setattr(attributes, name, stored[name])
        self._records[key] = _Record(attributes, replace(attributes), configured)
        return attributes

    async def save(self) -> None:
        """Make the attributes as they are now durable; does nothing if the file says the same.

        Runs on a worker; saves that overlap take turns.  Raises an :class:`~orionfs.errors.OrionError` if the file
        could not be written; it then holds what it held before.
        """
        async with self._saving:
            objects = self._merged()
            if objects == self._stored:
                return
            if self._refusal is not None:
                raise self._refusal
            text = json.dumps({"schema": SCHEMA, "objects": objects}, indent=1, sort_keys=True) + "\n"
            try:
                await self._worker.run(self._write, text.encode())
            except OSError as error:
                raise from_oserror(error, f"save attributes in {self._path}") from error
            self._stored = objects

    async def aclose(self, *, save: bool = True) -> None:
        """Save unless told not to, then let go of the worker, also if saving fails.  Idempotent."""
        try:
            if save:
                await self.save()
        finally:
            self._worker.close()

    def _merged(self) -> dict[str, dict[str, Any]]:
        """The objects of the file with those of this mount that have changed."""
        objects = dict(self._stored)
        for key, record in self._records.items():
            stored = self._stored.get(key)
            overruled = stored is not None and stored["configured"] != record.configured
            if overruled or record.attributes != record.initial:
                values = {name: getattr(record.attributes, name) for name in (*_CONFIGURABLE, *_TIMES)}
                objects[key] = {**values, "configured": record.configured}
        return objects

    def _write(self, data: bytes) -> None:
        hostfs = self._environment.hostfs
        hostfs.make_folder(self._path.parent)
        hostfs.replace(self._path, data)

    async def _set_aside(self, raw: bytes, why: str, events: EventLog) -> None:
        seconds = self._environment.clock.wall_ns() // 1_000_000_000
        aside = self._path.with_name(f"{self._path.name}.damaged-{seconds}")
        try:
            await self._worker.run(self._environment.hostfs.replace, aside, raw)
        except OSError as error:
            cause = from_oserror(error, f"copy it to {aside}")
            message = f"{self._path} is damaged ({why}) and stays as it is ({cause}); defaults are used"
            self._refusal = Refused(f"{self._path} is damaged and could not be copied aside, so it is not overwritten")
        else:
            message = f"{self._path} is damaged ({why}); it was copied to {aside} and defaults are used"
        events.emit("attributes.damaged", str(self._path), message, severity="warning")


def _parse(raw: bytes) -> dict[str, dict[str, Any]]:
    """The objects in *raw*.  ValueError says in a few words what is wrong with it."""
    document = json.loads(raw)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f'its schema is not "{SCHEMA}"')
    objects = document.get("objects")
    if not isinstance(objects, dict):
        raise ValueError('it has no "objects"')
    return {key: _parse_object(key, value) for key, value in objects.items()}


def _parse_object(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("configured"), dict):
        raise ValueError(f'"{key}" is not an object with "configured"')
    parsed: dict[str, Any] = {name: _integer(key, value, name) for name in (*_CONFIGURABLE, *_TIMES)}
    parsed["configured"] = {name: _integer(key, value["configured"], name) for name in _CONFIGURABLE}
    return parsed


#: Beyond these a value cannot have come from stat(2), and would not fit into its answer.
_LIMITS = {"mode": (0, 0o7777), "uid": (0, 2**32 - 2), "gid": (0, 2**32 - 2)}
_TIME_LIMITS = (-(2**63), 2**63 - 1)


def _integer(key: str, values: Mapping[str, object], name: str) -> int:
    number = values.get(name)
    low, high = _LIMITS.get(name, _TIME_LIMITS)
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ValueError(f'"{name}" of "{key}" is not a number between {low} and {high}')
    return number

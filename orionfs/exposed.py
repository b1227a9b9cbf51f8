"""Exposed: a device as the outside sees it, be it a file of the mounted tree or an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import trio

from orionfs.attributes import Attributes
from orionfs.errors import AccessRefused, OrionError, ReadOnly
from orionfs.layers.bytewise import Bytewise

#: What truncating the file of a device does: fail with EPERM, succeed without effect as on a block device, or succeed
#: and leave zeros behind as in a file.
TruncatePolicy = Literal["refuse", "ignore", "discard"]

#: Extended attributes of ours begin with this.
XATTR_PREFIX = "user.orionfs."


@dataclass(slots=True, eq=False)
class Exposed:
    """One device, and the terms on which it is shown.  Used on the event loop only.

    ``device`` is the one :class:`~orionfs.layers.bytewise.Bytewise` over the device that is shown, used by everybody
    who serves it, because the locks of its read-modify-writes only hold within one instance.
    ``folder`` is where it is in the tree (``arrays``, ``volumes/tank``), ``claimed_by`` the device above that owns it,
    if there is one.  ``attributes`` are live: they change in place.
    """

    name: str
    folder: str
    device: Bytewise
    attributes: Attributes
    read_only: bool = False
    truncate: TruncatePolicy = "refuse"
    claimed_by: str = ""
    #: Why it takes no more writes since something went wrong; empty while all is well.
    latched: str = ""
    #: The flush that failed.  It stays: what the kernel has dropped, a later success does not bring back.
    flush_failure: OrionError | None = None
    #: How many handles have it open.
    open_count: int = 0
    _closed: trio.Event | None = None

    def release(self) -> None:
        """One handle less."""
        self.open_count -= 1
        if self._closed is not None and not self.open_count:
            self._closed.set()

    async def await_release(self) -> None:
        """Return when nobody has it open."""
        while self.open_count:
            self._closed = trio.Event()
            await self._closed.wait()

    @property
    def key(self) -> str:
        """What the object is called in the tree and in the state that OrionFS keeps: ``arrays/vault``."""
        return f"{self.folder}/{self.name}"

    @property
    def writable(self) -> bool:
        """Whether a write has a chance.  Cheaper than :meth:`check_writable`; for the data path."""
        return not (self.read_only or self.claimed_by or self.latched)

    def check_writable(self) -> None:
        """Raise ReadOnly (EROFS), or AccessRefused (EACCES) if it is claimed, unless it takes writes."""
        if self.claimed_by:
            raise AccessRefused(f"{self.key} belongs to {self.claimed_by}", hint=f"write to {self.claimed_by} instead")
        if self.latched:
            raise ReadOnly(f"{self.key} latched read-only: {self.latched}", hint="mount it again to clear the latch")
        if self.read_only:
            raise ReadOnly(f"{self.key} is read-only")

    def latch(self, why: str) -> None:
        """Take no more writes until the next mount.  The first reason stays."""
        if not self.latched:
            self.latched = why

    def xattrs(self) -> dict[str, bytes]:
        """The extended attributes by full name (``user.orionfs.state``), their values as text.

        They are the words and numbers of the device's description; whatever is a list there is left to status.json.
        """
        description = self.device.child.describe()
        facts: dict[str, object] = dict(description.details)
        facts.update(kind=description.kind, name=description.name, state=description.state)
        if self.latched:
            facts["latched"] = self.latched
        return {XATTR_PREFIX + name: _text(value).encode() for name, value in sorted(facts.items()) if _is_plain(value)}


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)

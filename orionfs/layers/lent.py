"""Lent: a device that somebody uses and does not own."""

from __future__ import annotations

from orionfs.device import Description
from orionfs.layers.layer import Layer


class Lent(Layer):
    """*child* as it is, but for its end: closing this flushes it, and leaves it to whoever owns it."""

    def describe(self) -> Description:
        return self.child.describe()

    async def aclose(self) -> None:
        await self.child.flush()

"""The configuration of a running mount: the file is the truth, and is edited and read anew while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orionfs.config.edit import Edit
from orionfs.config.load import load_spec
from orionfs.config.spec import Spec
from orionfs.environment import Environment
from orionfs.hostfs import HostFs


class Configuration:
    """``spec`` is what the file said when it was read last, and ``text`` its contents then (empty: not read here)."""

    def __init__(self, spec: Spec, environment: Environment) -> None:
        self.spec = spec
        self.text = ""
        self._hostfs = environment.hostfs
        self._worker = environment.threads.worker("configuration")

    async def edit(self, change: Callable[[Edit], object]) -> None:
        """Make *change* in the file, durably.  Raises as :class:`~orionfs.config.edit.Edit` does."""
        self.spec, self.text = await self._worker.run(_edit, self.spec.path, change, self._hostfs)

    async def preview(self, change: Callable[[Edit], object]) -> Spec:
        """What the configuration would be after *change*.  Raises as :meth:`edit`; changes nothing."""
        return (await self._worker.run(_edit, self.spec.path, change, None))[0]

    async def reload(self) -> None:
        """Read the file anew.  Raises as :func:`~orionfs.config.load.load_spec` does."""
        self.spec, self.text = await self._worker.run(_read, self.spec.path)

    def close(self) -> None:
        """Let the worker go.  Does not wait."""
        self._worker.close()


def _edit(path: Path, change: Callable[[Edit], object], hostfs: HostFs | None) -> tuple[Spec, str]:
    edit = Edit(path)
    change(edit)
    return edit.check() if hostfs is None else edit.write(hostfs), edit.text


def _read(path: Path) -> tuple[Spec, str]:
    spec = load_spec(path)
    return spec, spec.path.read_bytes().decode()

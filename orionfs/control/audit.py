"""The audit log: who asked the daemon for what.  One JSON object per line, in ``state/audit.log`` beside the spec."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from orionfs.environment import Environment

#: At this size the log becomes ``audit.log.1``, in place of the one before.
MAX_SIZE = 8 << 20


class AuditLog:
    """Appends records to one file.  Records of concurrent requests do not mix."""

    def __init__(self, path: Path, environment: Environment, max_size: int = MAX_SIZE) -> None:
        """*path* need not exist, nor its folder."""
        self._path = path
        self._hostfs = environment.hostfs
        self._worker = environment.threads.worker("audit")
        self._max_size = max_size

    async def append(self, record: dict[str, Any], *, durable: bool = False) -> None:
        """Add *record*; if *durable*, a power cut after the call does not lose it.  Raises OSError."""
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        await self._worker.run(self._append, line, durable)

    def close(self) -> None:
        """Let the file go.  Does not wait."""
        self._worker.close()

    def _append(self, line: bytes, durable: bool) -> None:
        self._hostfs.make_folder(self._path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes reached {self._path}")
            if durable:
                os.fsync(descriptor)
            full = os.fstat(descriptor).st_size >= self._max_size
        finally:
            os.close(descriptor)
        if full:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))

"""Points in time as text, for JSON, logs and events."""

from __future__ import annotations

from datetime import UTC, datetime

_MILLISECOND_NS = 1_000_000


def rfc3339(wall_ns: int) -> str:
    """*wall_ns* (nanoseconds since 1970) in UTC with milliseconds: ``2026-11-20T17:48:03.250Z``."""
    milliseconds = wall_ns // _MILLISECOND_NS
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"

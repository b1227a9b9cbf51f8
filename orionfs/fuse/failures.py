"""Failures: every exception of a handler becomes an errno here, and leaves a trace.

The transport ends the whole mount on any exception but its own, so this is the one place where all are caught.
"""

from __future__ import annotations

import errno
import logging

from orionfs.clock import Clock
from orionfs.errors import NoSpace, OrionError, Refused
from orionfs.exposed import Exposed
from orionfs.monitor.events import EventLog

logger = logging.getLogger("orionfs.fuse")

#: One failure is reported this often and no more: a broken device gets thousands of requests per second.
REPORT_INTERVAL_S = 60.0


class Failures:
    """Turns exceptions into errnos.  Used on the event loop only.

    - An :class:`~orionfs.errors.OrionError` and an OSError carry their errno.  Where the program that gets it cannot
      know the reason, that is reported as an event: EIO, a backing store that is full, what is refused on principle.
    - Anything else is a bug of ours: EIO, a traceback in the log, an event; and if the request was about to change a
      device, that device takes no more writes, because nobody knows what state the bug left it in.
    """

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._reported: dict[tuple[str, str, str], float] = {}

    def errno_of(self, handler: str, subject: str, error: Exception, exposed: Exposed | None, writing: bool) -> int:
        """The errno for *error*, which *handler* raised for *subject*; *exposed* is the device, if it is one's file."""
        if isinstance(error, OrionError | OSError):
            code = error.errno or errno.EIO
            if self._needs_words(error, code) and self._is_news(handler, subject, error):
                self._report(handler, subject, error)
            # ENOSYS would make the kernel stop asking: an fsync that once gave it succeeds for ever after.
            return errno.EIO if code == errno.ENOSYS else code
        latching = writing and exposed is not None and not exposed.latched
        if latching or self._is_news(handler, subject, error):
            self._report_bug(handler, subject, error, latching)
        if latching and exposed is not None:
            exposed.latch(f"an internal error in {handler} left its state unknown")
        return errno.EIO

    def _needs_words(self, error: Exception, code: int) -> bool:
        return code == errno.EIO or isinstance(error, NoSpace | Refused)

    def _report(self, handler: str, subject: str, error: Exception) -> None:
        if isinstance(error, Refused):
            self._events.emit("request.refused", subject, f"{handler} was refused: {error}", handler=handler)
        elif isinstance(error, NoSpace):
            message = f"{handler} found no space: {error.message}; free some there: nothing that was stored is lost"
            self._events.emit("io.no-space", subject, message, severity="warning", handler=handler)
        else:
            self._events.emit("io.error", subject, f"{handler} failed: {error}", severity="error", handler=handler)

    def _report_bug(self, handler: str, subject: str, error: Exception, latching: bool) -> None:
        logger.error("%s of %s met an internal error", handler, subject, exc_info=error)
        consequence = "; it takes no more writes until it is mounted again" if latching else ""
        self._events.emit(
            "internal.error",
            subject,
            f"{handler} met an internal error ({type(error).__name__}: {error}){consequence}",
            severity="error",
            handler=handler,
            latched=latching,
        )

    def _is_news(self, handler: str, subject: str, error: Exception) -> bool:
        key = (handler, subject, type(error).__name__)
        now = self._clock.monotonic()
        last = self._reported.get(key)
        if last is not None and now - last < REPORT_INTERVAL_S:
            return False
        self._reported[key] = now
        return True

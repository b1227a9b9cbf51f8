"""Where a daemon's log lines go: a file of its own in the runtime folder, and the system's log if there is one.

In the foreground they go to standard error instead.  None of the places may ever make the event loop wait: the journal
may itself lie on a filesystem that this process serves.
"""

from __future__ import annotations

import logging
import os
import socket
from logging.handlers import RotatingFileHandler, SysLogHandler
from pathlib import Path

#: At this size the file becomes ``….log.1``, in place of the one before.
MAX_SIZE = 1 << 20

_DEV_LOG = Path("/dev/log")
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S"


def log_to_stderr(verbose: bool) -> None:
    """For ``-o foreground``."""
    _install([logging.StreamHandler()], verbose)


def log_to_file(path: Path, verbose: bool) -> None:
    """For a daemon: *path*, in a folder on which this process does not depend, and the system's log."""
    handlers: list[logging.Handler] = [RotatingFileHandler(path, maxBytes=MAX_SIZE, backupCount=1, encoding="utf-8")]
    if _DEV_LOG.exists():
        handlers.append(SystemLog(_DEV_LOG))
    _install(handlers, verbose)


def _install(handlers: list[logging.Handler], verbose: bool) -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    logging.getLogger("orionfs").setLevel(logging.DEBUG if verbose else logging.INFO)
    for handler in handlers:
        if handler.formatter is None:
            handler.setFormatter(logging.Formatter(_FORMAT, _TIME))
        root.addHandler(handler)


class SystemLog(logging.Handler):
    """Sends each line to *path* (``/dev/log``) as ``orionfs[PID]``, and drops it rather than wait.

    The library's SysLogHandler waits when the reader is behind.  What is dropped here is still in the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._socket: socket.socket | None = None
        self.setFormatter(logging.Formatter(f"orionfs[{os.getpid()}]: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        level = SysLogHandler.priority_names.get(record.levelname.lower(), SysLogHandler.LOG_INFO)
        line = f"<{SysLogHandler.LOG_DAEMON << 3 | level}>{self.format(record)}".encode()
        try:
            self._connected().send(line)
        except BlockingIOError:
            return
        except OSError:
            self.close_socket()  # the system's log was restarted: the next line connects again

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._socket.connect(str(self._path))
        return self._socket

    def close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self.close_socket()
        super().close()

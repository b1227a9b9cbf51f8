"""Where a daemon's log lines go, and that they never make it wait."""

import logging
import os
import socket
from pathlib import Path

import pytest

from orionfs.tools.logs import SystemLog, log_to_file


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("orionfs.daemon", level, __file__, 1, message, None, None)


@pytest.fixture
def listener(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "log"))
        reader.setblocking(False)
        yield reader


@pytest.fixture
def system_log(tmp_path: Path):
    handler = SystemLog(tmp_path / "log")
    yield handler
    handler.close()


def test_the_system_log_gets_priority_name_and_process(listener, system_log):
    system_log.emit(record("mounted"))
    system_log.emit(record("member d2 failed", logging.WARNING))
    daemon, info, warning = 3, 6, 4
    assert listener.recv(4096).decode() == f"<{daemon * 8 + info}>orionfs[{os.getpid()}]: mounted"
    assert listener.recv(4096).decode() == f"<{daemon * 8 + warning}>orionfs[{os.getpid()}]: member d2 failed"


def test_a_reader_that_is_behind_is_not_waited_for(listener, system_log):
    for number in range(10_000):  # would block for ever at some point, since nobody reads
        system_log.emit(record(f"line {number}"))
    assert listener.recv(4096).endswith(b"line 0")


def test_a_system_log_that_was_restarted_is_found_again(tmp_path, system_log):
    for generation in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
            reader.bind(str(tmp_path / "log"))
            if generation:
                system_log.emit(record("lost: the old reader is gone"))
            system_log.emit(record(f"generation {generation}"))
            assert reader.recv(4096).endswith(f"generation {generation}".encode())
        (tmp_path / "log").unlink()


def test_without_a_reader_nothing_happens(tmp_path, system_log):
    system_log.emit(record("into the void"))


@pytest.fixture
def loggers():
    """The root logger and ours as they were before."""
    root, ours = logging.getLogger(), logging.getLogger("orionfs")
    before = list(root.handlers), root.level, ours.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before[0]]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_the_file_has_time_level_and_logger_and_debug_only_if_verbose(tmp_path, loggers):
    log_to_file(tmp_path / "daemon.log", verbose=False)
    logging.getLogger("orionfs.daemon").debug("detail")
    logging.getLogger("orionfs.daemon").info("mounted at %s", "/mnt/o")
    (line,) = (tmp_path / "daemon.log").read_text().splitlines()
    time, level, name, message = line.split(" ", 3)
    assert (level, name, message) == ("INFO", "orionfs.daemon:", "mounted at /mnt/o")
    assert "T" in time
    log_to_file(tmp_path / "verbose.log", verbose=True)
    logging.getLogger("orionfs.daemon").debug("detail")
    assert "DEBUG orionfs.daemon: detail" in (tmp_path / "verbose.log").read_text()

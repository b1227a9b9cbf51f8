"""What holds for every test: nothing unexpected is logged, and nothing is left behind."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from orionfs.tools.mountinfo import is_beneath, read_mounts

ROOT = Path(__file__).resolve().parent.parent
LEVELS = ("units", "devices", "layers", "arrays", "fuse", "interop", "sim")

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the campaigns (tests marked long)")


def pytest_configure(config: pytest.Config) -> None:
    # A daemon that a test started and forgot becomes a child of this process, not of init, and so it is found.
    become_subreaper()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lowest level first: what fails first is nearest to the cause."""
    items.sort(key=_level)


def _level(item: pytest.Item) -> int:
    level = item.path.relative_to(ROOT / "tests").parts[0]
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("part of a campaign: run it with tools/run-tests --long")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    if item.get_closest_marker("fuse"):
        if not Path("/dev/fuse").exists():
            pytest.skip("needs /dev/fuse: modprobe fuse, or give the container the device")
        if os.geteuid() != 0 and shutil.which("fusermount3") is None:
            pytest.skip("needs fusermount3: apt install fuse3")


@pytest.fixture
def requires():
    """``requires("mdadm", "fio")`` skips the test, with the reason, where a program is missing."""

    def check(*programs: str) -> None:
        missing = [name for name in programs if shutil.which(name) is None]
        if missing:
            pytest.skip(f"needs {' and '.join(missing)}: tools/run-tests installs what the tests use")

    return check


# --- logs ------------------------------------------------------------------------------------------------------------


class LogGuard(logging.Handler):
    """Collects what the test has to account for: records of WARNING and above below the logger ``orionfs``."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.expected: dict[re.Pattern[str], bool] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def expect(self, *patterns: str, required: bool = True) -> None:
        for pattern in patterns:
            self.expected[re.compile(pattern)] = required

    def check(self) -> None:
        unexpected = [line for line in self.lines if not any(pattern.search(line) for pattern in self.expected)]
        assert not unexpected, "logged without being expected:\n" + "\n".join(unexpected)
        for pattern, required in self.expected.items():
            missing = required and not any(pattern.search(line) for line in self.lines)
            assert not missing, f"expected in the log, but not there: {pattern.pattern}"


@pytest.fixture(autouse=True)
def _log_guard(runtime_folder: Path) -> Iterator[LogGuard]:
    guard = LogGuard()
    logger = logging.getLogger("orionfs")
    logger.addHandler(guard)
    yield guard
    logger.removeHandler(guard)
    for log in sorted(runtime_folder.glob("*.log*")):  # of daemons that the test has started
        guard.lines += [line for line in log.read_text().splitlines() if _LOUD.search(line)]
    guard.check()


#: What a daemon writes: time, level, logger, message.
_LOUD = re.compile(r"\b(WARNING|ERROR|CRITICAL) orionfs|^Traceback ")


@pytest.fixture
def expected_logs(_log_guard: LogGuard):
    """``expected_logs("member d2 failed")`` declares a warning: a pattern that must be logged (WARNING or above).

    With ``required=False`` it may be logged.  What is logged and not declared fails the test, also if a daemon that
    the test started logged it.
    """
    return _log_guard.expect


# --- leftovers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything of this session lives; TMPDIR is inside, so that nothing hides in the machine's /tmp."""
    base = tmp_path_factory.getbasetemp()
    temporary = base / "tmp"
    temporary.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    return base


@pytest.fixture(autouse=True)
def runtime_folder(scratch: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of mounts for this test alone.  The path is short: a socket address has 107 bytes."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    monkeypatch.setenv("ORIONFS_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _nothing_left(scratch: Path, runtime_folder: Path) -> Iterator[None]:
    """Fails the test that leaves a mount, a loop device, a process, a thread or a file behind, and cleans up."""
    reap_zombies()
    threads = set(threading.enumerate())
    processes = set(children())
    files = outside_files(scratch)
    yield
    left = [f"mount at {mountpoint}" for mountpoint in our_mounts(scratch)]
    left += [f"loop device {device} over {path}" for device, path in our_loops(scratch).items()]
    clean_up(scratch)
    left += [f"thread {thread.name}" for thread in set(threading.enumerate()) - threads if not ends(thread)]
    reap_zombies()
    for pid in set(children()) - processes:
        left.append(f"process {pid}: {command_line(pid)}")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    left += [f"file {path}" for path in sorted(outside_files(scratch) - files)]
    assert not left, "left behind: " + ", ".join(left)


def our_mounts(scratch: Path) -> list[str]:
    """Deepest first.  Only what lies in this session's folder or in this checkout: others may use the machine too.

    What was mounted before the tests began is somebody's store, such as that of tools/quickstart.
    """
    mounts = [(mount.mount_id, mount.mountpoint) for mount in reversed(read_mounts())]
    bases = (str(scratch), str(ROOT))
    return [point for mount, point in mounts if mount not in BEFORE and any(is_beneath(point, base) for base in bases)]


#: Identifiers of the mounts that are not the tests' business.
BEFORE = frozenset(mount.mount_id for mount in read_mounts())


def our_loops(scratch: Path) -> dict[str, str]:
    loops = {}
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            path = file.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        device = f"/dev/{file.parent.parent.name}"
        if device not in LOOPS_BEFORE and (is_beneath(path, str(scratch)) or is_beneath(path, str(ROOT))):
            loops[device] = path
    return loops


#: Loop devices that were in use before the tests began.
LOOPS_BEFORE = frozenset(
    f"/dev/{file.parent.parent.name}" for file in Path("/sys/block").glob("loop*/loop/backing_file")
)


def clean_up(scratch: Path) -> None:
    """So that one test's leftovers do not fail the next one."""
    for mountpoint in our_mounts(scratch):
        os.spawnlp(os.P_WAIT, "umount", "umount", "-i", "-l", mountpoint)
    for device in our_loops(scratch):
        os.spawnlp(os.P_WAIT, "losetup", "losetup", "-d", device)


def ends(thread: threading.Thread) -> bool:
    """A worker that was closed is on its way out; trio keeps idle threads of its own for a while."""
    if thread.name.startswith("Trio thread"):
        return True
    thread.join(timeout=5)
    return not thread.is_alive()


def outside_files(scratch: Path) -> set[Path]:
    """What a careless test creates: entries of the checkout's own folder and of TMPDIR."""
    folders = (ROOT, scratch / "tmp")
    ignored = {".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", "__pycache__"}
    return {entry for folder in folders for entry in folder.iterdir() if entry.name not in ignored}


def children() -> list[int]:
    """The living children of this process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def reap_zombies() -> None:
    """Collect the orphans that ended: they came to us because of :func:`become_subreaper`."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == os.getpid() and fields[0] == "Z":
            os.waitpid(int(stat.parent.name), os.WNOHANG)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def become_subreaper() -> None:
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")

"""Real mounts, each served by a process of its own (see served.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVED = Path(__file__).with_name("served.py")


class Mounted:
    """A mount with its daemon.  ``arrays`` and ``control`` are the folders in it."""

    def __init__(self, mountpoint: Path, log: Path, configuration: dict[str, Any]) -> None:
        self.mountpoint = mountpoint
        self.arrays = mountpoint / "arrays"
        self.control = mountpoint / ".orionfs"
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, SERVED, json.dumps(configuration), mountpoint],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
            )
        self.first = self._answer()

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Have the daemon do something; what it answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()["result"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the daemon ended without an answer; see its log"
        return json.loads(line)

    def unmount(self) -> int:
        """Unmount and wait for the daemon; its exit status."""
        subprocess.run(["umount", "-i", self.mountpoint], check=True)
        return self.wait()

    def wait(self) -> int:
        """Wait for the daemon to end by itself."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait(timeout=20)

    def discard(self) -> None:
        """Get rid of it, whatever state the test left it in."""
        if self.process.poll() is None:
            self.process.kill()  # first: umount asks the daemon, and it may be stuck
            self.process.wait()
            subprocess.run(["umount", "-i", "-l", self.mountpoint], check=False, stderr=subprocess.DEVNULL)
        self.wait()


@pytest.fixture
def mount(tmp_path: Path, runtime_folder: Path) -> Iterator[Callable[..., Mounted]]:
    """``mount({"name": "vault", "size": 1 << 20}, options={…})`` mounts RAM devices at ``tmp_path / "m"``.

    A device has ``name``, and may have ``size`` (16 MiB), ``block`` (512), ``wait`` (never served inline), ``mode``,
    ``read_only``, ``truncate`` and ``claimed_by``.
    """
    mounts: list[Mounted] = []

    def make(*devices: dict[str, Any], at: str = "m", **configuration: Any) -> Mounted:
        mountpoint = tmp_path / at
        mountpoint.mkdir(exist_ok=True)
        mounted = Mounted(mountpoint, runtime_folder / "served.log", {"devices": devices, **configuration})
        mounts.append(mounted)
        return mounted

    yield make
    for mounted in mounts:
        mounted.discard()


@pytest.fixture
def other_user(tmp_path: Path) -> tuple[str, ...]:
    """What to put before a command so that nobody (65534) runs it, who then can reach the folders of this test."""
    for folder in (tmp_path, *tmp_path.parents):
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o011)
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


@pytest.fixture
def vault(mount: Callable[..., Mounted]) -> Mounted:
    """A mount with one 16 MiB device, ``arrays/vault``."""
    return mount({"name": "vault"})


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run("dd", "if=…")`` runs a program to its end; its output is text."""

    def call(*command: str | os.PathLike[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=_PLAIN)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    return call


_PLAIN = {**os.environ, "LC_ALL": "C"}

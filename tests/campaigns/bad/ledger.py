"""Ledger: runs what must be refused, shows what came of it, and keeps account of all that was not as it must be."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orionfs.errors import OrionError, outcome_of
from orionfs.tools.mountinfo import TYPE, is_beneath, read_mounts
from tests.campaigns import stage

#: What a program may take; a member that is a pipe must not hold it up.
LIMIT_S = 60
PROGRAMS = ("mount.orionfs", "umount.orionfs", "orionctl")

CONFIG = """\
[[array]]
name = "vault"
level = "{level}"
members = ["members/d0.img", "members/d1.img", "members/d2.img", "members/d3.img"]
member_size = "4MiB"
"""


class Ledger:
    """One campaign in *folder*, where everything happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mnt = folder / "mnt"
        self.runtime = folder / "run"
        self.mnt.mkdir()
        self.runtime.mkdir(mode=0o700)
        path = f"{stage.PROGRAMS}:/usr/sbin:/sbin:{os.environ['PATH']}"
        os.environ.update(ORIONFS_RUNTIME_DIR=str(self.runtime), PATH=path, LC_ALL="C")
        self.failures: list[str] = []
        self.cases = 0
        self._patterns: dict[str, Path] = {}

    def chapter(self, title: str) -> None:
        print(f"\n== {title}", flush=True)

    @contextmanager
    def case(self, title: str, *, changes: bool = False) -> Iterator[Case]:
        """One case.  Unless it *changes* something by design, all is compared with how it was before."""
        print(f"\n{title}")
        case = Case(self.folder)
        before = photograph(self.folder)
        try:
            yield case
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            case.check(False, f"it could not be carried out: {error}")
        after = photograph(self.folder)
        if not changes:
            different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
            case.check(not different, f"changed: {', '.join(different)}")
        case.check(not bugs(self.runtime), f"the log of a daemon has a traceback: {'; '.join(bugs(self.runtime))}")
        self.cases += 1
        self.failures += [f"{title}: {problem}" for problem in case.problems]
        kept = "" if changes else f"; nothing changed ({_count(after)})"
        print("  NOT OK: " + "; ".join(case.problems) if case.problems else f"  ok{kept}", flush=True)

    def store(self, name: str = "store", level: str = "raid5") -> Path:
        """A small array of four members, made from a pattern so that each has the age of the others."""
        place = self.folder / name
        if level not in self._patterns:
            pattern = self.folder / f"pattern-{level}"
            pattern.mkdir()
            (pattern / "orionfs.toml").write_text(CONFIG.format(level=level))
            stage.run(stage.ORIONCTL, "init", pattern)
            self._patterns[level] = pattern
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._patterns[level], place)
        return place

    def settle(self) -> None:
        """Until the daemon has marked the array clean, which it does by itself; then nothing of its own moves."""
        stage.wait_until(lambda: array_status(self.mnt)["state"] not in ("active", "resyncing"), "the array is idle")


class Case:
    """The programs of one case, and what was wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self._folder = folder

    def check(self, good: bool, problem: str) -> None:
        if not good:
            self.problems.append(problem)

    def refused(self, *command: str | Path, error: type[OrionError], words: Sequence[str] = ()) -> str:
        """One of our programs ends with the exit code of *error*; its one sentence, which must have all *words*."""
        done = self.run(*command)
        self._check_code(done, outcome_of(error).exit_code, error.__name__)
        return self._one_sentence(done.stderr, done.stdout, words)

    def noted(self, *command: str | Path, words: Sequence[str] = ()) -> str:
        """One of our programs succeeds, and has one sentence to say about it."""
        done = self.run(*command)
        self._check_code(done, 0, "success")
        return self._one_sentence(done.stderr, done.stdout, words, with_hint=False)

    def found(self, spec: Path, *, error: type[OrionError], line: int, words: Sequence[str] = ()) -> None:
        """``orionctl config check`` finds just this one mistake, on *line* (0: it is no line's)."""
        done = self.run("orionctl", "config", "check", spec)
        self._check_code(done, outcome_of(error).exit_code, error.__name__)
        where = f"orionfs.toml:{line}: " if line else ""
        self._one_sentence(done.stdout, done.stderr, [where, *words], prefix=False)

    def works(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """A program of ours or of the system succeeds; ours print nothing."""
        done = self.run(*command)
        self._check_code(done, 0, "success")
        if Path(command[0]).name in PROGRAMS:
            self.check(not done.stderr, "it printed something")
        return done

    def fails(self, *command: str | Path, code: int, words: Sequence[str]) -> None:
        """A program of the system fails with *code* and says *words*."""
        done = self.run(*command)
        self._check_code(done, code, "failure")
        said = done.stdout + done.stderr
        self.check(all(word in said for word in words), f"it does not say {' and '.join(words)}")

    def run(self, *command: str | Path, shown: str = "") -> subprocess.CompletedProcess[str]:
        """Run and print a command and what it said; *shown* instead of the command if that is long."""
        words = [str(word) for word in command]
        print(f"  $ {shown or shlex.join(words)}")
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, cwd=self._folder, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            print(f"    {line}")
        print(f"    exit {done.returncode}", flush=True)
        self.check("Traceback" not in done.stdout + done.stderr, "it printed a traceback")
        return done

    def _check_code(self, done: subprocess.CompletedProcess[str], code: int, name: str) -> None:
        self.check(done.returncode == code, f"exit {done.returncode} and not {code} ({name})")

    def _one_sentence(
        self, text: str, rest: str, words: Sequence[str], *, prefix: bool = True, with_hint: bool = True
    ) -> str:
        """What is wrong with *text* as the only sentence that a program says; *rest* is its other stream, empty."""
        sentence = text.rstrip("\n")
        self.check(text.count("\n") == 1 and not rest, "it does not say one sentence")
        self.check(not prefix or sentence.startswith(tuple(f"{name}: " for name in PROGRAMS)), "it says not who speaks")
        self.check(not with_hint or "; " in sentence, "it does not say what to do next")
        self.check(all(word in sentence for word in words), f"it does not say {' and '.join(words)}")
        outside = re.sub(r"\([^()]*\)", "", sentence)  # in parentheses members are listed, often for one reason
        clauses = [clause for part in outside.split("; ") for clause in part.split(": ")]
        self.check(len(set(clauses)) == len(clauses), "it says something twice")
        return sentence


def photograph(folder: Path) -> dict[str, str]:
    """Everything that a refusal must leave alone: files, mounts, loop devices and daemons of *folder*.

    What the mounts of OrionFS show is not looked at, only what they are made of.
    """
    seen = {}
    points = [mount for mount in read_mounts() if is_beneath(mount.mountpoint, str(folder))]
    seen.update({f"mount {mount.mountpoint}": f"{mount.mount_id} {mount.source}" for mount in points})
    ours = {mount.mountpoint for mount in points if mount.type == TYPE}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if f"{place}/{name}" not in ours]
        for name in folders + files:
            path = Path(place, name)
            if path.suffix not in (".log", ".failure"):
                seen[f"file {path.relative_to(folder)}"] = _facts(path)
    for device, backing in loops(folder).items():
        seen[f"loop {device}"] = backing
    for pid, command in daemons(folder).items():
        seen[f"daemon {pid}"] = command
    return seen


def _facts(path: Path) -> str:
    status = path.lstat()
    facts = f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {status.st_ino}"
    if not path.is_file() or path.is_symlink():
        return facts
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{facts} {status.st_size} {status.st_mtime_ns} {digest}"


def _count(seen: dict[str, str]) -> str:
    kinds = [key.split()[0] for key in seen]
    return ", ".join(f"{kinds.count(kind)} {kind}s" for kind in ("file", "mount", "loop", "daemon"))


def loops(folder: Path) -> dict[str, str]:
    """The loop devices over files of *folder*."""
    found = {}
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        if is_beneath(backing, str(folder)):
            found[f"/dev/{file.parent.parent.name}"] = backing
    return found


def daemons(folder: Path) -> dict[int, str]:
    """The processes that serve, or try to serve, something of *folder*."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        if any(Path(word).name == "mount.orionfs" for word in words) and any(str(folder) in word for word in words):
            found[int(entry.parent.name)] = " ".join(words).strip()
    return found


def bugs(runtime: Path) -> list[str]:
    """The lines of the daemons' logs that no bad input may cause."""
    signs = ("Traceback", "internal error", "internal.error")
    lines = [line for log in sorted(runtime.glob("*.log*")) for line in log.read_text().splitlines()]
    return [line for line in lines if any(sign in line for sign in signs)]


def array_status(mountpoint: Path) -> dict:
    """The array of the mount, as ``orionctl status --json`` reports it."""
    return stage.status(mountpoint)["arrays"][0]

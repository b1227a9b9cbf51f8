"""The pages for newcomers are true: their commands are run as written, and what they say is printed is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.fuse


class Command(NamedTuple):
    """One command of a page: as whom, on which line, and what the page says that it prints (nothing: anything)."""

    line: int
    root: bool
    text: str
    output: list[str]


def commands_of(page: Path) -> list[Command]:
    """The indented lines that begin with a prompt, each with the indented lines that follow it."""
    found: list[Command] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith(("    $ ", "    # ")):
            found.append(Command(number, line[4] == "#", line[6:], []))
        elif line.startswith("    ") and found and not line.strip().startswith("/srv/"):
            found[-1].output.append(line[4:])
        elif line.strip() and found:
            found.append(Command(number, False, ":", []))  # prose: what is indented after it is no output
    return [command for command in found if command.text != ":"]


def masked(text: str) -> str:
    """*text* without what differs from machine to machine: ids, times, owners and columns."""
    for pattern, replacement in (
        (r"pid \d+", "pid N"),
        (r"up [\dhms]+", "up T"),
        (r"^(-[rwx-]+) 1 \S+ \S+ (\d+) .*?(\S+)$", r"\1 \2 \3"),
        (r"^/dev/loop\d+$", "/dev/loopN"),
        (r"^total \d+\n", ""),
        (r" +$", ""),
        (r"\n+", "\n"),
        (r" {2,}", "  "),
    ):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.strip()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell at home in an empty folder, as a newcomer's is; mounts and loop devices are taken away at the end."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "HOME": str(home),
        "LC_ALL": "C",
    }
    with subprocess.Popen(
        ["bash", "--norc"],
        cwd=home,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.write(
            f"umount -q '{tmp_path}'/srv/* '{tmp_path}/srv'; orionctl detach vault; orionctl detach notes\n"
        )
        process.stdin.write("for place in ~/mnt; do umount.orionfs $place; done\n")
        process.stdin.close()
        process.wait(timeout=30)


def run_in(shell: subprocess.Popen[str], text: str) -> tuple[int, str]:
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{{ {text}\n}} </dev/null\necho :$?:end\n")
    shell.stdin.flush()
    lines = []
    while not (match := re.search(r":(\d+):end$", line := shell.stdout.readline().rstrip("\n"))):
        assert line or shell.poll() is None, f"the shell ended in: {text}"
        lines.append(line)
    lines.append(line.removesuffix(match[0]))
    return int(match[1]), "\n".join(lines)


#: Exit statuses that are not 0 and right: a degraded mount is status 1.
_FINE = {"orionctl status": (0, 1), "orionctl doctor": (0, 1)}


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_commands_of_a_page_do_what_it_says(page, shell, tmp_path, requires, expected_logs):
    requires("mkfs.ext4")
    expected_logs(r"array\.notice")
    expected_logs("failed by the administrator", required=False)
    (tmp_path / "home" / "photos.tar").write_bytes(os.urandom(1 << 20))
    places = {"/srv": tmp_path / "srv", "/tmp": tmp_path / "aside"}
    for place in places.values():
        place.mkdir()
    commands = commands_of(ROOT / page)
    assert len(commands) >= 8
    for command in commands:
        if command.root and os.geteuid() != 0:
            continue
        text = re.sub(r"(?<= )/(srv|tmp)\b", lambda match: str(places[match[0]]), command.text)
        status, printed = run_in(shell, text)
        assert status in _FINE.get(command.text, (0,)), f"{page}:{command.line}: {command.text}: {printed}"
        if command.output:
            wanted = masked("\n".join(command.output))
            assert masked(printed.replace(str(tmp_path / "home"), "/home/you")) == wanted, f"{page}:{command.line}"


@pytest.mark.parametrize("example", sorted(path.parent.name for path in ROOT.glob("mountpoints/*/orionfs.toml")))
def test_an_example_is_mounted_as_its_page_says(example, shell, tmp_path):
    source = ROOT / "mountpoints" / example
    shutil.copytree(
        source,
        tmp_path / "home" / "mountpoints" / example,
        ignore=shutil.ignore_patterns("members", "state", "mnt"),
    )
    lines = [line[4:] for line in (source / "README.md").read_text().splitlines() if line.startswith("    ")]
    assert lines[0].startswith("orionctl init")
    assert lines[-1].startswith("umount.orionfs")
    for line in lines[:-1]:
        status, printed = run_in(shell, line)
        assert status == 0, f"{line}: {printed}"
    mountpoint = tmp_path / "home" / "mountpoints" / example / "mnt"
    for array in (mountpoint / "arrays").iterdir():
        with array.open("rb") as file:
            assert file.read(4096) == bytes(4096)
    assert run_in(shell, f"orionctl status {mountpoint}")[0] == 0
    status, printed = run_in(shell, lines[-1])
    assert status == 0, printed

"""What people do to a file and cannot do to a device: run past its end, truncate it, copy over it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from random import Random

from tests.campaigns import stage
from tests.campaigns.bad.ledger import Case, Ledger

BLOCK = 4096
MIB = 1 << 20


class Vault:
    """The array's file: what it holds, asked of the members and not of the page cache."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.size = file.stat().st_size
        self.blocks = self.size // BLOCK

    def fill(self) -> None:
        """No block is like another, so that nothing can be lost or moved without being seen."""
        data = Random(5).randbytes(self.size)
        with self.file.open("r+b") as file:
            file.write(data)
            os.fsync(file.fileno())

    def contents(self) -> bytes:
        """All bytes, with direct I/O."""
        return stage.read_direct(self.file)

    def view(self) -> tuple[int, str, str]:
        """Size, and the sums of what buffered and direct reads return."""
        buffered = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return self.file.stat().st_size, buffered, hashlib.sha256(self.contents()).hexdigest()


def run(ledger: Ledger) -> None:
    store = ledger.store()
    with stage.mounted(store, ledger.mnt) as file:
        vault = Vault(file)
        vault.fill()
        ledger.chapter(f"File: past the end (the array has {vault.size} bytes)")
        past_the_end(ledger, vault)
        ledger.chapter("File: truncating and copying over it")
        dd(ledger, vault)
        copies(ledger, vault)
        qemu_img(ledger, vault)


def unchanged(ledger: Ledger, vault: Vault, title: str, *command: str | Path, code: int, words: list[str]) -> None:
    """A program fails, and neither members nor contents have changed."""
    ledger.settle()
    with ledger.case(title) as case:
        before = vault.view()
        case.fails(*command, code=code, words=words)
        case.check(vault.view() == before, "the contents of the array have changed")


def changed(
    ledger: Ledger, vault: Vault, title: str, *command: str | Path, code: int, expected: bytes, words: list[str]
) -> None:
    """A program changes the array, to just what is *expected*."""
    with ledger.case(title, changes=True) as case:
        done = case.run(*command)
        case.check(done.returncode == code, f"exit {done.returncode} and not {code}")
        case.check(all(word in done.stdout + done.stderr for word in words), f"it does not say {' and '.join(words)}")
        holds(case, vault, expected)


def holds(case: Case, vault: Vault, expected: bytes) -> None:
    size, buffered, direct = vault.view()
    digest = hashlib.sha256(expected).hexdigest()
    case.check(size == vault.size, f"its size is {size} now")
    case.check(buffered == digest, "buffered reads return something else than was written")
    case.check(direct == digest, "direct reads return something else than was written")


def past_the_end(ledger: Ledger, vault: Vault) -> None:
    full = ["No space left on device"]
    to, end = f"of={vault.file}", vault.blocks
    for title, more in (
        ("write behind the end", [f"seek={end + 7}", "conv=notrunc"]),
        ("write at the end", [f"seek={end}", "conv=notrunc"]),
        ("write at the end, with direct I/O", [f"seek={end}", "conv=notrunc", "oflag=direct"]),
        ("append", ["oflag=append", "conv=notrunc"]),
    ):
        unchanged(ledger, vault, title, "dd", "if=/dev/zero", to, f"bs={BLOCK}", "count=1", *more, code=1, words=full)
    expected = vault.contents()[:-BLOCK] + bytes(BLOCK)
    command = ["dd", "if=/dev/zero", to, f"bs={BLOCK}", "count=3", f"seek={end - 1}", "conv=notrunc"]
    title = "write across the end: what fits is stored, then there is no space"
    changed(ledger, vault, title, *command, code=1, expected=expected, words=full)
    command = ["dd", "if=/dev/zero", to, f"bs={3 * BLOCK}", "count=1", f"seek={vault.size - BLOCK}",
               "oflag=seek_bytes", "conv=notrunc"]  # fmt: skip
    title = "one write across the end: what fits is stored, the rest gets no space"
    changed(ledger, vault, title, *command, code=1, expected=expected, words=full)
    ledger.settle()
    with ledger.case("read across the end, and behind it: the end of the file") as case:
        across = case.run("dd", f"if={vault.file}", "of=/dev/null", f"bs={BLOCK}", f"skip={end - 1}", "count=3")
        case.check(across.returncode == 0 and "1+0 records in" in across.stderr, "it is not the last block alone")
        behind = case.run("dd", f"if={vault.file}", "of=/dev/null", f"bs={BLOCK}", f"skip={end + 7}", "count=1")
        case.check(behind.returncode == 0 and "0+0 records in" in behind.stderr, "there is something behind the end")


def dd(ledger: Ledger, vault: Vault) -> None:
    to = f"of={vault.file}"
    refused = ["Operation not permitted"]
    title = "plain dd of=, without conv=notrunc"
    unchanged(ledger, vault, title, "dd", "if=/dev/zero", to, "bs=1M", "count=1", code=1, words=refused)
    with ledger.case("… and why that is not permitted") as case:
        case.works("grep", "request.refused", ledger.mnt / ".orionfs" / "events")
    before = vault.contents()
    with ledger.case("dd seek=, without conv=notrunc: it complains, and truncates nothing", changes=True) as case:
        done = case.run("dd", "if=/dev/zero", to, "bs=1M", "count=1", "seek=5")
        case.check("failed to truncate" in done.stderr and refused[0] in done.stderr, "it says nothing of that")
        # dd of coreutils 9.1 goes on and writes what it was asked to; others may give up.
        asked_for = before[: 5 * MIB] + bytes(MIB) + before[6 * MIB :]
        holds(case, vault, asked_for if done.returncode == 0 else before)
    expected = bytearray(vault.contents())
    expected[2 * MIB : 3 * MIB] = bytes(MIB)
    command = ["dd", "if=/dev/zero", to, "bs=1M", "count=1", "seek=2", "conv=notrunc,fsync"]
    title = "dd seek= with conv=notrunc: works, and touches nothing else"
    changed(ledger, vault, title, *command, code=0, expected=bytes(expected), words=["1+0 records out"])
    title = "truncate -s 0"
    unchanged(ledger, vault, title, "truncate", "-s", "0", vault.file, code=1, words=refused)


def copies(ledger: Ledger, vault: Vault) -> None:
    image = ledger.folder / "image"
    image.write_bytes(b"image" * 1000)
    refused = ["Operation not permitted"]
    unchanged(ledger, vault, "cp onto it", "cp", image, vault.file, code=1, words=refused)
    title = "cp --remove-destination onto it"
    unchanged(ledger, vault, title, "cp", "--remove-destination", image, vault.file, code=1, words=refused)
    title = "a shell that redirects to it"
    unchanged(ledger, vault, title, "sh", "-c", f"echo data > {vault.file}", code=2, words=refused)
    unchanged(ledger, vault, "mv onto it", "mv", image, vault.file, code=1, words=refused)
    unchanged(ledger, vault, "rm", "rm", vault.file, code=1, words=refused)
    image.unlink()


def qemu_img(ledger: Ledger, vault: Vault) -> None:
    source = ledger.folder / "source.qcow2"
    raw = bytearray(vault.size)
    raw[MIB : 3 * MIB] = Random(6).randbytes(2 * MIB)
    (ledger.folder / "source.raw").write_bytes(raw)
    convert = ["qemu-img", "convert", "-f", "raw", "-O"]
    stage.run(*convert, "qcow2", ledger.folder / "source.raw", source)
    command = ["qemu-img", "convert", "-O", "raw", source, vault.file]
    title = "qemu-img convert without -n"
    unchanged(ledger, vault, title, *command, code=1, words=["Operation not permitted"])
    title = "qemu-img convert with -n: works, and what is zero in the image is zero on the array"
    changed(ledger, vault, title, *command[:2], "-n", *command[2:], code=0, expected=bytes(raw), words=[])
    larger = ledger.folder / "larger.qcow2"
    stage.run("qemu-img", "create", "-q", "-f", "qcow2", larger, str(vault.size + MIB))
    command = ["qemu-img", "convert", "-n", "-O", "raw", larger, vault.file]
    title = "qemu-img convert with -n, of an image that is larger than the array"
    unchanged(ledger, vault, title, *command, code=1, words=["smaller than input file"])
    for path in (source, larger, ledger.folder / "source.raw"):
        path.unlink()

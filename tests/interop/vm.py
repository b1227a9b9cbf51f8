"""A throw-away virtual machine with a stock kernel, whose MD the arrays have to agree with.

The machine is a program beside the checkout: ``run-in-vm --disk IMAGE ... SCRIPT`` boots, runs the script as root with
the images as /dev/vda, /dev/vdb ... and exits with its status.  ORIONFS_RUN_IN_VM names it if it is elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(os.environ.get("ORIONFS_RUN_IN_VM") or ROOT.parent / "shared/tools/vm/run-in-vm")
#: What a virtual PC has PCI slots for.
MAX_DISKS = 28
#: Programs that the machine is made of, with the packages that have them.
_PARTS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "mdadm": "mdadm",
}


def why_not() -> str:
    """What is missing for a virtual machine; empty if it can be had."""
    if not PROGRAM.exists():
        return f"needs {PROGRAM} (or ORIONFS_RUN_IN_VM) to boot a kernel that has MD"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = [package for program, package in _PARTS.items() if shutil.which(program, path=path) is None]
    if not list(Path("/boot").glob("vmlinuz-*")):
        packages.append("linux-image-amd64")
    return f"needs apt install {' '.join(packages)}" if packages else ""


def boot(disks: Sequence[Path], script: str, *, timeout_s: int = 150) -> str:
    """Run *script* in the machine with *disks*; its output.  Fails unless it ends with status 0."""
    assert len(disks) <= MAX_DISKS
    command = [str(PROGRAM), "--timeout", str(timeout_s)]
    for disk in disks:
        command += ["--disk", str(disk)]
    done = subprocess.run(
        [*command, "-"], input=script, capture_output=True, text=True, check=False, timeout=timeout_s + 60
    )
    assert done.returncode == 0, f"the virtual machine ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def device_name(index: int) -> str:
    """What the guest calls its disk number *index*."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return f"/dev/vd{letters[index]}" if index < 26 else f"/dev/vda{letters[index - 26]}"

"""Guest: scripts for many arrays in one boot of the virtual machine, and the facts that they report.

Each script belongs to one case and has devices of its own, ``$d0`` ``$d1`` ... (all: ``$disks``); its array is ``$md``,
its state ``$sys``; ``$numbers`` are those of the arrays that can have redundancy, several if it is nested.

What it says with ``fact KEY VALUE...`` comes back; if a command of it fails, that case alone has failed, and what its
commands printed comes back too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.interop.pattern import pattern
from tests.interop.pool import Pool
from tests.interop.vm import boot

LIBRARY = r"""
fact() { echo "FACT $case $*" >&3; }

# The size of the array, which the other functions need.
started() { size=$(blockdev --getsize64 $md); fact size $size; }

sum() { fact ${1:-sum} $(sha256sum <$md | cut -d' ' -f1); }

# Until CONDITION holds; what the kernel does by itself tells nobody when it is done.
until_true() {
    turns=0
    until eval "$1"; do
        turns=$((turns + 1))
        [ $turns -lt 400 ] || { echo "not within 20 s: $1"; cat /proc/mdstat; return 1; }
        sleep 0.05
    done
}

# Redundancy in order and nothing under way, with so many members missing (none).
settle() {
    for number in $numbers; do
        state=/sys/block/md$number/md
        [ -e $state/sync_action ] || continue
        until_true "[ \$(cat $state/degraded) = ${1:-0} ]"
        until_true "[ \$(cat $state/resync_start) = none ]"
        until_true "[ \$(cat $state/sync_action) = idle ]"
    done
}

# Count what does not agree, in sectors; of a whole array only, and not of one that has nothing to compare.
check() {
    degraded=0 mismatches=0
    for number in $numbers; do
        state=/sys/block/md$number/md
        [ -e $state/sync_action ] || continue
        degraded=$((degraded + $(cat $state/degraded)))
        [ $degraded = 0 ] || continue
        echo check >$state/sync_action
        until_true "[ \$(cat $state/sync_action) = idle ]"
        mismatches=$((mismatches + $(cat $state/mismatch_cnt)))
    done
    fact degraded $degraded
    fact mismatches $mismatches
}

# The resync or recovery that is under way stops by itself at sector $1 of the members.
wait_at() { until_true "[ \"\$(cut -d' ' -f1 $sys/sync_completed)\" = $1 ]"; }

# The replacement that is under way is done.
replaced() { until_true "! grep '^${md#/dev/} ' /proc/mdstat | grep -q '(R)'"; }

stop() {
    mdadm --stop $md
    for number in $numbers; do
        [ /dev/md$number = $md ] || mdadm --stop /dev/md$number
    done
}
"""

_RUN = """
sh -e /tmp/{case} 3>&1 >/tmp/{case}.log 2>&1 || {{
    sed 's/^/LOG {case} /' /tmp/{case}.log
    for array in {arrays}; do mdadm --stop $array; done >/dev/null 2>&1
}}
"""

#: How many numbers of arrays each case has for itself: its own, and those of arrays within it.
NUMBERS = 8


class Facts(dict[str, list[str]]):
    """What one script reported: the words behind each key."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.failed = True  # until it is known to have run

    def word(self, key: str) -> str:
        """The one word that is said of *key*."""
        (word,) = self[key]
        return word

    def number(self, key: str) -> int:
        return int(self.word(key))


class Boot:
    """One boot: add scripts with their members, then :meth:`run` it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = Pool(folder / "pool")
        self._cases: list[tuple[str, str]] = []

    def add(self, case: str, paths: Sequence[Path], script: str) -> None:
        """Have *script* run with *paths* as its devices, after those that were added before."""
        disks = [self._pool.add(f"{case}.{index}", path) for index, path in enumerate(paths)]
        base = len(self._cases) * NUMBERS
        names = "\n".join(f"d{index}={disk}" for index, disk in enumerate(disks))
        head = f"case={case}\nmd=/dev/md{base}\nnumbers={base}\nsys=/sys/block/md{base}/md\n{names}\n"
        self._cases.append((case, f"{head}disks='{' '.join(disks)}'\n. /tmp/library\n{script}\nfact done\n"))

    def run(self, *, cut: bool = False) -> dict[str, Facts]:
        """Boot, run everything, and bring the members back; with *cut*, the power is cut at the end."""
        source = self._folder / "pattern"
        source.write_bytes(pattern())
        self._pool.pack()
        done = boot([self._pool.image, source], self._script(cut), timeout_s=120 + 8 * len(self._cases))
        self._pool.unpack()
        source.unlink()
        return self._facts(done)

    def _script(self, cut: bool) -> str:
        parts = [
            "vm-load md-mod raid0 raid1 raid10 raid456 linear dm-mod",
            f"dmsetup create --concise '{self._pool.table('/dev/vda')}' || exit 1",
            "export source=/dev/vdb",
            f"cat >/tmp/library <<'END-OF-LIBRARY'\n{LIBRARY}\nEND-OF-LIBRARY",
        ]
        streams: list[list[str]] = [[]]  # one for each processor of the machine
        for index, (case, script) in enumerate(self._cases):
            arrays = " ".join(f"/dev/md{index * NUMBERS + number}" for number in range(NUMBERS))
            parts.append(f"cat >/tmp/{case} <<'END-OF-CASE'\n{script}\nEND-OF-CASE")
            streams[index % len(streams)].append(_RUN.format(case=case, arrays=arrays))
        parts += [f"{{\n:\n{''.join(stream)}\n}} &" for stream in streams]
        return "\n".join([*parts, "wait", "vm-crash 0" if cut else ""])

    def _facts(self, output: str) -> dict[str, Facts]:
        facts = {case: Facts() for case, _script in self._cases}
        for line in output.splitlines():
            kind, _, rest = line.partition(" ")
            case, _, text = rest.partition(" ")
            if kind == "LOG":
                facts[case].log.append(text)
            elif kind == "FACT":
                key, *words = text.split()
                facts[case][key] = words
                if key == "done":
                    facts[case].failed = False
        return facts

"""``mount.orionfs`` and ``umount.orionfs``: by hand, from mount(8) and fstab, and when things go wrong."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orionfs.control.runtime import find
from orionfs.tools.mountinfo import Mount, mount_at, read_mounts

pytestmark = pytest.mark.fuse

BIN = Path(sys.executable).parent
MOUNT, UMOUNT, ORIONCTL = (str(BIN / name) for name in ("mount.orionfs", "umount.orionfs", "orionctl"))

SPEC = """\
[[array]]
name = "vault"
level = "{level}"
members = [{members}]
member_size = "8MiB"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run() -> Run:
    """``run("mount", …)`` runs a program to its end, in the environment as the test has set it."""

    def call(*command: str | os.PathLike[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    return call


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """``make_store()`` makes a small RAID 5 in the folder ``store`` and returns that folder."""

    def make(name: str = "store", level: str = "raid5", members: int = 3) -> Path:
        store = tmp_path / name
        store.mkdir()
        listed = ", ".join(f'"members/d{index}.img"' for index in range(members))
        (store / "orionfs.toml").write_text(SPEC.format(level=level, members=listed))
        subprocess.run([ORIONCTL, "init", str(store)], check=True, capture_output=True)
        return store

    return make


@pytest.fixture
def store(make_store: Callable[..., Path]) -> Path:
    return make_store()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount on; what is still mounted there at the end is taken away."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    while mounted(folder) is not None:
        subprocess.run([UMOUNT, str(folder)], check=True)


@pytest.fixture
def helpers() -> Iterator[None]:
    """The links in /sbin by which mount(8) and umount(8) find the helpers; what was there before comes back."""
    links = {
        Path("/sbin/mount.orionfs"): MOUNT,
        Path("/sbin/mount.fuse.orionfs"): MOUNT,
        Path("/sbin/umount.orionfs"): UMOUNT,
        Path("/sbin/umount.fuse.orionfs"): UMOUNT,
    }
    before = {link: link.readlink() for link in links if link.is_symlink()}
    for link, program in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    yield
    for link in links:
        link.unlink()
        if link in before:
            link.symlink_to(before[link])


def mounted(folder: Path) -> Mount | None:
    return mount_at(read_mounts(), str(folder))


def write(place: Path, text: bytes, offset: int = 0) -> None:
    descriptor = os.open(place / "arrays" / "vault", os.O_WRONLY)
    try:
        os.pwrite(descriptor, text, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(place: Path, length: int, offset: int = 0) -> bytes:
    with (place / "arrays" / "vault").open("rb") as file:
        file.seek(offset)
        return file.read(length)


def state(store: Path, run: Run) -> list[str]:
    """What mdadm would see: the state of each member, read from the superblocks while nothing is mounted."""
    from orionfs.array.superblock import OFFSET, RESYNC_DONE, SIZE, Superblock

    found = []
    for member in sorted((store / "members").iterdir()):
        raw = member.read_bytes()[OFFSET : OFFSET + SIZE]
        found.append("clean" if Superblock.parse(raw).resync_offset == RESYNC_DONE else "dirty")
    return found


def daemon_pid(place: Path) -> int:
    return find(place).pid


def await_end(pid: int) -> None:
    """Until process *pid* is gone; it is a child of this one (see conftest), so that it can be waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(20_000)
    os.close(descriptor)
    assert ended, f"process {pid} does not end"


def one_line(done: subprocess.CompletedProcess[str], program: str = "mount.orionfs") -> str:
    """The single line that a program that failed has printed."""
    assert done.stdout == ""
    assert done.stderr.startswith(f"{program}: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix(f"{program}: ").rstrip("\n")


# --- the usual way ---------------------------------------------------------------------------------------------------


def test_it_returns_when_the_mount_is_usable_and_unmounting_when_the_members_are_clean(store, place, run):
    done = run(MOUNT, store, place)
    assert (done.stdout, done.stderr) == ("", "")
    write(place, b"hello")
    pid = daemon_pid(place)
    run(UMOUNT, place)
    await_end(pid)  # has ended already: umount.orionfs waited for it
    assert mounted(place) is None
    assert state(store, run) == ["clean"] * 3


def test_it_can_be_mounted_again_at_once_many_times(store, place, run):
    for generation in range(5):
        run(MOUNT, store, place)
        assert read(place, 1) == bytes([generation])
        write(place, bytes([generation + 1]))
        run(UMOUNT, place)


def test_the_name_in_the_mount_table_is_the_spec_as_given(store, place, run, monkeypatch):
    monkeypatch.chdir(store.parent)
    run(MOUNT, "store/../store/orionfs.toml", "mnt")
    mount = mounted(place)
    assert mount is not None
    assert (mount.source, mount.type) == ("store/../store/orionfs.toml", "fuse.orionfs")


def test_verbose_says_what_was_done(store, place, run):
    assert run(MOUNT, "-v", store, place).stdout == f"mount.orionfs: {store} mounted on {place}\n"
    assert run(UMOUNT, "-v", place).stdout == f"umount.orionfs: {place} unmounted\n"


def test_the_daemon_keeps_nothing_of_its_caller(store, place, tmp_path):
    with (tmp_path / "inherited").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        subprocess.run([MOUNT, store, place], check=True, close_fds=False, cwd=store, capture_output=True)
    process = Path(f"/proc/{daemon_pid(place)}")
    assert (process / "cwd").readlink() == Path("/")
    files = {str(link.readlink()) for link in (process / "fd").iterdir()}
    assert str(tmp_path / "inherited") not in files
    assert [str((process / "fd" / standard).readlink()) for standard in "012"] == [os.devnull] * 3
    assert os.getsid(int(process.name)) != os.getsid(0)
    subprocess.run([UMOUNT, place], check=True)


def test_options_reach_the_files_and_the_kernel(store, place, run):
    run(MOUNT, store, place, "-o", "mode=0640,uid=1234,gid=4321,noexec,noatime,x-gvfs-hide,nofail")
    status = (place / "arrays" / "vault").stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 1234, 4321)
    mount = mounted(place)
    assert mount is not None
    assert {"noexec", "noatime", "nosuid", "nodev"} <= set(mount.options)


def test_read_only_takes_no_writes_and_changes_no_member(store, place, run):
    before = [member.read_bytes() for member in sorted((store / "members").iterdir())]
    run(MOUNT, "-o", "ro", store, place)
    with pytest.raises(OSError, match="Read-only"):
        write(place, b"x")
    assert read(place, 512) == bytes(512)
    run(UMOUNT, place)
    assert [member.read_bytes() for member in sorted((store / "members").iterdir())] == before


def test_a_degraded_array_is_mounted_with_one_line_that_says_so(store, place, run):
    (store / "members" / "d1.img").unlink()
    done = run(MOUNT, store, place)
    note = one_line(done)
    assert "vault is degraded [U_U]" in note
    assert "members/d1.img" in note


@pytest.fixture(autouse=True)
def _degraded_is_logged(request, expected_logs):
    if "degraded" in request.node.name:
        expected_logs("degraded|d1.img")


# --- mount(8), umount(8), fstab --------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("kind", ["orionfs", "fuse.orionfs"])
def test_mount_and_umount_find_the_helpers(store, place, run, helpers, kind):
    run("mount", "-t", kind, store, place)
    write(place, b"by mount(8)")
    pid = daemon_pid(place)
    run("umount", place)
    assert mounted(place) is None
    await_end(pid)
    assert state(store, run) == ["clean"] * 3
    run("mount", "-t", kind, store, place)  # at once
    assert read(place, 11) == b"by mount(8)"
    run("umount", place)


@pytest.mark.root
@pytest.mark.parametrize("command", [["umount", "-i"], ["fusermount3", "-u"], [UMOUNT], ["umount", "-l"]])
def test_however_it_is_unmounted_the_table_of_umount_keeps_no_entry(store, place, run, command):
    table = Path("/run/mount/utab")
    run(MOUNT, store, place)
    assert f"TARGET={place} " in table.read_text()
    pid = daemon_pid(place)
    run(*command, place)
    await_end(pid)
    assert f"TARGET={place} " not in table.read_text()


@pytest.mark.root
def test_a_line_in_fstab_is_mounted_once_by_mount_a(store, place, run, helpers, tmp_path, monkeypatch):
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{store}/orionfs.toml {place} orionfs nofail,_netdev,x-systemd.mount-timeout=30,mode=0600 0 0\n")
    monkeypatch.setenv("LIBMOUNT_FSTAB", str(fstab))
    for _ in range(2):
        run("mount", "-a")
        assert [mount.mountpoint for mount in read_mounts()].count(str(place)) == 1
    run("umount", place)
    run("mount", place)
    assert mounted(place) is not None
    run("umount", place)


@pytest.mark.root
def test_the_exit_status_of_the_helper_passes_through_mount(place, run, helpers, tmp_path):
    done = run("mount", "-t", "orionfs", tmp_path / "nowhere.toml", place, check=False)
    assert done.returncode == 3
    assert "nowhere.toml" in one_line(done)


@pytest.mark.root
def test_a_fake_mount_only_checks(store, place, run, helpers):
    run("mount", "-f", "-t", "orionfs", store, place)
    assert mounted(place) is None
    done = run(MOUNT, "-f", store, place / "missing", check=False)
    assert done.returncode == 3


def test_sloppy_forgives_what_is_unknown(store, place, run):
    assert run(MOUNT, store, place, "-o", "surprise", check=False).returncode == 2
    run(MOUNT, "-s", "-n", "-t", "orionfs", store, place, "-o", "surprise")
    run(UMOUNT, "-n", "-r", "-t", "fuse.orionfs", place)


@pytest.mark.root
def test_nofail_forgives_only_what_is_missing(store, place, run, tmp_path):
    done = run(MOUNT, tmp_path / "nowhere.toml", place, "-o", "nofail")
    assert "nowhere.toml" in one_line(done)
    (store / "orionfs.toml").write_text("[[array]\n")
    assert run(MOUNT, store, place, "-o", "nofail", check=False).returncode == 2


@pytest.mark.root
def test_it_mounts_in_another_mount_namespace(store, place, run):
    with subprocess.Popen(["unshare", "-m", "cat"], stdin=subprocess.PIPE) as other:
        assert other.stdin is not None
        while Path(f"/proc/{other.pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
            os.sched_yield()  # until unshare has done it
        run(MOUNT, "-N", str(other.pid), store, place)
        assert mounted(place) is None
        assert mount_at(read_mounts(other.pid), str(place)) is not None
        run(UMOUNT, "-N", f"/proc/{other.pid}/ns/mnt", place)
        assert mount_at(read_mounts(other.pid), str(place)) is None
        other.stdin.close()


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_leaves_clean_members(store, place, run, number):
    run(MOUNT, store, place)
    write(place, b"before the signal")
    pid = daemon_pid(place)
    os.kill(pid, number)
    await_end(pid)
    assert mounted(place) is None
    assert state(store, run) == ["clean"] * 3
    run(MOUNT, store, place)
    assert read(place, 17) == b"before the signal"


def test_hanging_up_does_nothing(store, place, run):
    run(MOUNT, store, place)
    os.kill(daemon_pid(place), signal.SIGHUP)
    run(ORIONCTL, "status", place)
    assert read(place, 1) == b"\0"


def test_a_signal_while_files_are_open_names_them_and_still_leaves_clean_members(
    store, place, run, expected_logs, runtime_folder
):
    expected_logs(r"mount\.detached .* still in use by")
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    descriptor = os.open(place / "arrays" / "vault", os.O_RDWR)
    os.write(descriptor, b"still open")
    os.kill(pid, signal.SIGTERM)
    await_end(pid)
    with pytest.raises(OSError, match=r"not connected|Software caused"):
        os.read(descriptor, 1)
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)
    assert mounted(place) is None
    assert state(store, run) == ["clean"] * 3
    log = next(runtime_folder.glob("*.log")).read_text()
    assert f"[{os.getpid()}] ({place}/arrays/vault)" in log
    run(MOUNT, store, place)
    assert read(place, 10) == b"still open"


def test_a_killed_daemon_is_mounted_over(store, place, run, expected_logs):
    expected_logs("not closed properly")
    run(MOUNT, store, place)
    write(place, b"survives a kill")
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(place)
    run(MOUNT, store, place)
    assert read(place, 15) == b"survives a kill"
    assert [mount.mountpoint for mount in read_mounts()].count(str(place)) == 1


def test_the_mount_of_a_killed_daemon_can_be_unmounted(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    run(UMOUNT, place)
    assert mounted(place) is None


def test_unmounting_reports_a_daemon_that_died_on_the_way(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGSTOP)
    with subprocess.Popen([UMOUNT, place], stderr=subprocess.PIPE, text=True) as umount:
        while mounted(place) is not None:
            os.sched_yield()  # now it waits for the daemon
        os.kill(pid, signal.SIGKILL)
        assert umount.stderr is not None
        assert "died before it closed its members" in umount.stderr.read()
    assert umount.returncode == 8


def test_a_daemon_that_could_not_write_everything_tells_the_one_who_unmounts(store, place, run, runtime_folder):
    run(MOUNT, store, place)
    mount = find(place)
    os.kill(mount.pid, signal.SIGSTOP)
    with subprocess.Popen([UMOUNT, place], stderr=subprocess.PIPE, text=True) as umount:
        while mounted(place) is not None:
            os.sched_yield()
        mount.socket.with_suffix(".failure").write_text("cannot flush members/d0.img: Input/output error")
        os.kill(mount.pid, signal.SIGKILL)
        assert umount.stderr is not None
        assert "cannot flush members/d0.img: Input/output error; " in umount.stderr.read()
    assert umount.returncode == 8


def test_in_the_foreground_it_logs_to_stderr_and_ends_with_control_c(store, place):
    with subprocess.Popen([MOUNT, store, place, "-o", "foreground"], stderr=subprocess.PIPE, text=True) as front:
        assert front.stderr is not None
        assert "mount.ready" in front.stderr.readline()
        assert daemon_pid(place) == front.pid
        front.send_signal(signal.SIGINT)
        rest = front.stderr.read()
    assert front.returncode == 0
    assert "SIGINT: unmounting" in rest
    assert "all members are closed" in rest
    assert mounted(place) is None


# --- in use ----------------------------------------------------------------------------------------------------------


def test_a_busy_mount_is_not_unmounted_and_its_user_is_named(store, place, run):
    run(MOUNT, store, place)
    with (place / "arrays" / "vault").open("rb"):
        done = run(UMOUNT, place, check=False)
        assert done.returncode == 5
        line = one_line(done, "umount.orionfs")
        assert f"[{os.getpid()}] ({place}/arrays/vault)" in line
        assert "umount -l" in line
        assert read(place, 1) == b"\0"  # it goes on
    run(UMOUNT, place)


@pytest.mark.root
def test_loop_devices_over_a_mount_are_named(store, place, run):
    run(MOUNT, store, place)
    loop = run("losetup", "--find", "--show", place / "arrays" / "vault").stdout.strip()
    try:
        done = run(UMOUNT, place, check=False)
        assert done.returncode == 5
        assert f"{loop} ({place}/arrays/vault)" in one_line(done, "umount.orionfs")
    finally:
        run("losetup", "-d", loop)
    run(UMOUNT, place)


def test_a_lazy_unmount_detaches_at_once_and_the_daemon_ends_with_its_last_user(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    with (place / "arrays" / "vault").open("r+b", buffering=0) as file:
        run(UMOUNT, "-l", place)
        assert mounted(place) is None
        file.write(b"last words")
    await_end(pid)
    assert state(store, run) == ["clean"] * 3


@pytest.mark.root
def test_a_bind_mount_keeps_it_alive_and_unmounting_says_so(store, place, run, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    run("mount", "--bind", place, again)
    assert f"still mounted at {again}" in run(UMOUNT, place).stderr
    run("umount", "-i", again)
    await_end(pid)


def test_members_are_locked_while_they_are_mounted(store, place, run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    run(MOUNT, store, place)
    done = run(MOUNT, store, other, check=False)
    assert done.returncode == 5
    assert "d0.img" in one_line(done)
    assert mounted(other) is None
    assert read(place, 1) == b"\0"


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, ["two arguments", "--help"]),
        (["{store}"], 2, ["two arguments"]),
        (["{store}", "{place}", "more"], 2, ["two arguments"]),
        (["-Z", "{store}", "{place}"], 2, ["-Z", "--help"]),
        (["{store}", "{place}", "-o", "loud,tiny"], 2, ["unknown option 'tiny'"]),
        (["{store}", "{place}", "-o", "mode=9"], 2, ["mode=9", "octal"]),
        (["{store}", "{place}", "-N", "nowhere"], 2, ["nowhere", "namespace"]),
        (["{store}/none.toml", "{place}"], 3, ["none.toml"]),
        (["{tmp}", "{place}"], 3, ["orionfs.toml"]),
        (["{store}", "{tmp}/none"], 3, ["mount point", "mkdir -p"]),
        (["{store}", "{store}/orionfs.toml"], 2, ["not a folder"]),
        (["{store}", "{store}"], 5, ["not empty"]),
        (["{store}", "/proc"], 5, ["already mounted", "proc"]),
    ],
)
def test_bad_arguments_are_one_sentence_and_mount_nothing(store, place, run, tmp_path, arguments, status, words):
    before = read_mounts()
    filled = [text.format(store=store, place=place, tmp=tmp_path) for text in arguments]
    done = run(MOUNT, *filled, check=False)
    line = one_line(done)
    assert all(word in line for word in words), line
    assert done.returncode == status
    assert [mount for mount in read_mounts() if mount not in before and str(tmp_path) in mount.mountpoint] == []


def test_a_place_that_is_mounted_already_is_refused(make_store, place, run):
    run(MOUNT, make_store("one"), place)
    done = run(MOUNT, make_store("two"), place, check=False)
    assert done.returncode == 5
    assert "already mounted" in one_line(done)
    assert mounted(place) is not None


def test_a_member_beneath_the_mount_is_a_cycle(place, run, tmp_path):
    spec = tmp_path / "cycle.toml"
    spec.write_text(SPEC.format(level="raid1", members='"mnt/a.img", "b.img"'))
    done = run(MOUNT, spec, place, check=False)
    assert done.returncode == 5
    assert f"{place}/a.img is beneath the mount point {place}" in one_line(done)


@pytest.mark.root
def test_a_member_on_a_filesystem_over_the_dead_mount_is_a_cycle(make_store, place, run, tmp_path, requires):
    """The array carries an ext4 on a loop device, and on that ext4 lies a member of what shall be mounted there."""
    requires("mkfs.ext4")
    run(MOUNT, make_store("outer"), place)
    inner = tmp_path / "inner"
    inner.mkdir()
    run("mkfs.ext4", "-q", place / "arrays" / "vault")
    run("mount", "-o", "loop", place / "arrays" / "vault", inner)
    try:
        spec = tmp_path / "cycle.toml"
        spec.write_text(SPEC.format(level="raid1", members=f'"{inner}/a.img", "b.img"'))
        pid = daemon_pid(place)
        os.kill(pid, signal.SIGKILL)
        await_end(pid)
        done = run(MOUNT, spec, place, check=False)
        assert done.returncode == 5
        assert f"{inner}/a.img is on {place}/arrays/vault, beneath the mount point {place}" in one_line(done)
    finally:
        run("umount", "-l", inner)


@pytest.mark.root
def test_without_dev_fuse_the_way_out_is_told(store, place, run):
    script = 'mount -t tmpfs none /dev && : >/dev/null && exec "$@"'
    done = run("unshare", "-m", "sh", "-c", script, "sh", MOUNT, store, place, check=False)
    assert done.returncode == 7
    line = one_line(done)
    assert "/dev/fuse is not there" in line
    assert "modprobe fuse" in line


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, ["one argument", "--help"]),
        (["a", "b"], 2, ["one argument"]),
        (["-Z", "a"], 2, ["-Z"]),
        (["{place}"], 3, ["not a mount point"]),
        (["{place}/none"], 3, ["not a mount point"]),
        (["/proc"], 3, ["mount of type proc"]),
    ],
)
def test_unmounting_what_is_no_orionfs_is_one_sentence(place, run, arguments, status, words):
    done = run(UMOUNT, *[text.format(place=place) for text in arguments], check=False)
    line = one_line(done, "umount.orionfs")
    assert all(word in line for word in words), line
    assert done.returncode == status


@pytest.mark.parametrize("program", [MOUNT, UMOUNT])
def test_help_and_version(program, run):
    assert run(program, "--help").stdout.startswith("usage: ")
    assert "exit status" in run(program, "-h").stdout
    assert run(program, "--version").stdout.startswith(Path(program).name)


def test_the_events_tell_the_story_of_a_mount(store, place, run):
    run(MOUNT, store, place)
    kinds = [json.loads(line)["kind"] for line in (place / ".orionfs" / "events").read_text().splitlines()]
    assert kinds[-1] == "mount.ready"

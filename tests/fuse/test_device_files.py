"""Device files under real programs: what dd, cp, cmp, mmap and O_DIRECT see."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os

import pytest

from orionfs.fuse.binding import _bypasses_page_cache

pytestmark = pytest.mark.fuse

SIZE = 16 << 20


@pytest.fixture
def image(tmp_path):
    """A file of random bytes, as large as the device."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SIZE))
    return path


def aligned(data):
    """*data* in memory that O_DIRECT takes."""
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def overwrite(path, data):
    with path.open("r+b", buffering=0) as file:
        assert file.write(data) == len(data)


def digest(data):
    return hashlib.sha256(data).hexdigest()


# --- dd, cp, cmp -----------------------------------------------------------------------------------------------------


def test_dd_with_notrunc_writes_and_cmp_agrees(vault, run, image):
    run("dd", f"if={image}", f"of={vault.arrays}/vault", "bs=64k", "conv=notrunc,fsync")
    run("cmp", image, vault.arrays / "vault")
    assert vault.ask("calls", name="vault")["flush"] >= 1


def test_plain_dd_is_refused_and_changes_nothing(vault, run, image):
    run("dd", f"if={image}", f"of={vault.arrays}/vault", "bs=64k", "conv=notrunc")
    done = run("dd", "if=/dev/zero", f"of={vault.arrays}/vault", "bs=64k", "count=1", check=False)
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    run("cmp", image, vault.arrays / "vault")


def test_dd_seek_without_notrunc_complains_and_writes_nowhere_else(vault, run, image):
    run("dd", f"if={image}", f"of={vault.arrays}/vault", "bs=64k", "conv=notrunc")
    expected = bytearray(image.read_bytes())
    expected[7 * 4096 : 8 * 4096] = bytes(4096)
    command = ("dd", "if=/dev/zero", f"of={vault.arrays}/vault", "bs=4k", "seek=7", "count=1")
    done = run(*command, check=False)
    # With seek=, dd truncates after it has opened the file, says that this failed, and copies all the same.  Its exit
    # status is 0 or 1, depending on its version.
    assert "failed to truncate to 28672 bytes" in done.stderr
    assert "Operation not permitted" in done.stderr
    assert vault.ask("digest", name="vault") == digest(expected)
    assert run(*command, "conv=notrunc").returncode == 0
    assert vault.ask("digest", name="vault") == digest(expected)


def test_dd_past_the_end_says_no_space_after_it_filled_the_device(vault, run, tmp_path):
    data = tmp_path / "data"
    data.write_bytes(b"x" * (SIZE + 100_000))
    done = run("dd", f"if={data}", f"of={vault.arrays}/vault", "bs=1000", "conv=notrunc", check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert (vault.arrays / "vault").read_bytes() == b"x" * SIZE


def test_dd_beyond_the_end_writes_nothing_and_reads_nothing(vault, run):
    past = SIZE // 4096
    done = run("dd", "if=/dev/urandom", f"of={vault.arrays}/vault", "bs=4k", f"seek={past}", "count=1", "conv=notrunc",
               check=False)  # fmt: skip
    assert "No space left on device" in done.stderr
    assert (vault.arrays / "vault").stat().st_size == SIZE
    with (vault.arrays / "vault").open("rb") as file:
        file.seek(SIZE)
        assert file.read(4096) == b""


def test_cp_onto_a_device_is_refused_and_changes_nothing(vault, run, image):
    done = run("cp", image, vault.arrays / "vault", check=False)
    assert "Operation not permitted" in done.stderr
    done = run("cp", "--remove-destination", image, vault.arrays / "vault", check=False)
    assert "Operation not permitted" in done.stderr
    assert vault.ask("digest", name="vault") == digest(bytes(SIZE))


def test_cp_from_a_device_copies_it(vault, run, image, tmp_path):
    run("dd", f"if={image}", f"of={vault.arrays}/vault", "bs=1M", "conv=notrunc")
    run("cp", vault.arrays / "vault", tmp_path / "copy")
    run("cmp", image, tmp_path / "copy")


def test_appending_is_writing_at_the_end_of_a_block_device(vault, run):
    done = run("dd", "if=/etc/hostname", f"of={vault.arrays}/vault", "oflag=append", "conv=notrunc", check=False)
    assert "No space left on device" in done.stderr
    assert vault.ask("digest", name="vault") == digest(bytes(SIZE))


def test_a_write_across_the_end_is_short_as_on_a_block_device(vault):
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_DIRECT):
        descriptor = os.open(vault.arrays / "vault", flags)
        try:
            assert os.pwritev(descriptor, [aligned(b"x" * 8192)], SIZE - 4096) == 4096
            with pytest.raises(OSError, match="No space left"):
                os.pwritev(descriptor, [aligned(b"x" * 8192)], SIZE)
        finally:
            os.close(descriptor)
    assert vault.ask("peek", name="vault", offset=SIZE - 4097, length=4097) == "00" + "78" * 4096


# --- truncation ------------------------------------------------------------------------------------------------------


def test_truncating_to_another_size_is_refused_and_to_the_same_size_is_not(vault):
    with (vault.arrays / "vault").open("r+b") as file:
        for size in (0, SIZE - 1, SIZE + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(file.fileno(), size)
        os.ftruncate(file.fileno(), SIZE)
    with pytest.raises(PermissionError):
        os.truncate(vault.arrays / "vault", 0)
    assert (vault.arrays / "vault").stat().st_size == SIZE


def test_where_truncation_is_ignored_plain_dd_and_cp_act_as_on_a_block_device(mount, run, image):
    mounted = mount({"name": "vault", "truncate": "ignore"})
    run("dd", f"if={image}", f"of={mounted.arrays}/vault", "bs=1M")
    run("cmp", image, mounted.arrays / "vault")
    run("dd", "if=/dev/zero", f"of={mounted.arrays}/vault", "bs=4k", "count=1")
    assert (mounted.arrays / "vault").stat().st_size == SIZE
    assert (mounted.arrays / "vault").read_bytes() == bytes(4096) + image.read_bytes()[4096:]
    run("cp", image, mounted.arrays / "vault")
    run("cmp", image, mounted.arrays / "vault")


def test_where_truncation_discards_what_is_not_written_reads_as_zeros(mount, run, image):
    mounted = mount({"name": "vault", "truncate": "discard"})
    run("dd", f"if={image}", f"of={mounted.arrays}/vault", "bs=1M")
    with (mounted.arrays / "vault").open("rb") as reader:
        assert reader.read(SIZE) == image.read_bytes()  # now in the page cache
        run("dd", f"if={image}", f"of={mounted.arrays}/vault", "bs=4k", "count=1")
        reader.seek(0)
        assert reader.read() == image.read_bytes()[:4096] + bytes(SIZE - 4096)
    os.truncate(mounted.arrays / "vault", 100)
    assert (mounted.arrays / "vault").read_bytes() == image.read_bytes()[:100] + bytes(SIZE - 100)


def test_after_an_ignored_truncation_the_whole_device_can_be_mapped(mount):
    mounted = mount({"name": "vault", "truncate": "ignore"})
    with (mounted.arrays / "vault").open("w+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        assert mapped[SIZE - 1] == 0


# --- refused operations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "in_tree", "in_control"),
    [
        (lambda folder: (folder / "new").open("xb"), errno.EPERM, errno.EACCES),
        (lambda folder: (folder / "new").mkdir(), errno.EPERM, errno.EACCES),
        (lambda folder: os.mkfifo(folder / "new"), errno.EPERM, errno.EACCES),
        (lambda folder: (folder / "new").symlink_to("/"), errno.EPERM, errno.EACCES),
        (lambda folder: os.link(next(folder.iterdir()), folder / "new"), errno.EPERM, errno.EACCES),
        (lambda folder: next(folder.iterdir()).unlink(), errno.EPERM, errno.EACCES),
        (lambda folder: next(folder.iterdir()).rename(folder / "new"), errno.EPERM, errno.EACCES),
        (lambda folder: next(folder.iterdir()).rmdir(), errno.ENOTDIR, errno.ENOTDIR),
        (lambda folder: next(folder.iterdir()).readlink(), errno.EINVAL, errno.EINVAL),
        (lambda folder: (folder / "nothing").stat(), errno.ENOENT, errno.ENOENT),
        (lambda folder: (folder / ("n" * 256)).stat(), errno.ENAMETOOLONG, errno.ENAMETOOLONG),
        (lambda folder: (folder / ("n" * 256)).mkdir(), errno.ENAMETOOLONG, errno.ENAMETOOLONG),
        (lambda folder: folder.rmdir(), errno.EPERM, errno.EPERM),
        (lambda folder: folder.chmod(0o777), errno.EPERM, errno.EACCES),
        (lambda folder: os.setxattr(folder, "user.x", b"x"), errno.EOPNOTSUPP, errno.EOPNOTSUPP),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_the_tree_itself_cannot_be_changed(operation, in_tree, in_control, vault):
    for folder, code in ((vault.arrays, in_tree), (vault.control, in_control)):
        with pytest.raises(OSError, match=r".") as caught:
            operation(folder)
        assert errno.errorcode[caught.value.errno] == errno.errorcode[code]


@pytest.mark.parametrize(("terms", "code"), [({"read_only": True}, errno.EROFS), ({"claimed_by": "x"}, errno.EACCES)])
def test_a_device_that_takes_no_writes_is_shown_and_treated_so(terms, code, mount):
    mounted = mount({"name": "vault", **terms})
    path = mounted.arrays / "vault"
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.read_bytes() == bytes(SIZE)
    with pytest.raises(OSError, match=r".") as caught:
        path.open("r+b")
    assert caught.value.errno == code


# --- O_DIRECT, mmap, the page cache ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [512, 4096])
def test_any_offset_and_length_can_be_written_also_below_a_block(mount, block):
    mounted = mount({"name": "vault", "block": block, "wait": True})
    model = bytearray(os.urandom(64 << 10))
    with (mounted.arrays / "vault").open("r+b", buffering=0) as file:
        file.write(model)
        for offset, length in ((1, 1), (511, 2), (4095, 2), (5000, 3000), (0, 513), (65535, 1), (8192, 4096)):
            data = os.urandom(length)
            assert os.pwrite(file.fileno(), data, offset) == length
            model[offset : offset + length] = data
    assert vault_bytes(mounted, len(model)) == bytes(model)


def vault_bytes(mounted, length):
    """What the device itself holds, past the kernel and its cache."""
    return bytes.fromhex(mounted.ask("peek", name="vault", offset=0, length=length))


def test_direct_and_buffered_descriptors_and_mappings_see_the_same(vault):
    direct = os.open(vault.arrays / "vault", os.O_RDWR | os.O_DIRECT)
    buffered = os.open(vault.arrays / "vault", os.O_RDWR)
    page = mmap.mmap(-1, 4096)

    def read_direct():
        assert os.preadv(direct, [page], 0) == 4096
        return page[:4]

    try:
        with mmap.mmap(buffered, SIZE) as mapped:
            assert os.pread(buffered, 4, 0) == mapped[:4] == b"\0" * 4  # now in the page cache
            os.pwritev(direct, [aligned(b"1" * 4096)], 0)
            assert os.pread(buffered, 4, 0) == mapped[:4] == read_direct() == b"1111"
            os.pwrite(buffered, b"2" * 4096, 0)
            assert os.pread(buffered, 4, 0) == mapped[:4] == read_direct() == b"2222"
            mapped[:4] = b"3333"  # not synced
            assert os.pread(buffered, 4, 0) == mapped[:4] == read_direct() == b"3333"
            mapped[4096:4100] = b"4444"
            os.pwritev(direct, [aligned(b"5" * 512)], 4096 + 512)
            assert mapped[4096:4100] == b"4444"
            assert mapped[4096 + 512 : 4096 + 516] == b"5555"
            os.pwritev(direct, [aligned(b"6" * 8192)], 0)
            assert os.pread(buffered, 4, 4096) == mapped[4096:4100] == b"6666"
    finally:
        os.close(direct)
        os.close(buffered)
    assert vault_bytes(vault, 8192) == b"6" * 8192


def test_dd_with_direct_io_writes_and_reads(vault, run, image, tmp_path):
    run("dd", f"if={image}", f"of={vault.arrays}/vault", "bs=1M", "conv=notrunc", "oflag=direct")
    run("dd", f"if={vault.arrays}/vault", f"of={tmp_path}/copy", "bs=1M", "iflag=direct")
    run("cmp", image, tmp_path / "copy")


def test_direct_writes_ask_for_no_extended_attributes(vault, run):
    if not _bypasses_page_cache(os.uname().release):
        pytest.skip("needs a kernel whose direct writes may bypass the page cache (see binding.py)")
    run("dd", "if=/dev/zero", f"of={vault.arrays}/vault", "bs=4k", "count=100", "conv=notrunc", "oflag=direct")
    assert vault.ask("getxattrs").get("security.capability", 0) == 0
    run("dd", "if=/dev/zero", f"of={vault.arrays}/vault", "bs=4k", "count=100", "conv=notrunc")
    assert vault.ask("getxattrs")["security.capability"] <= 100


def test_what_is_written_through_a_mapping_reaches_the_device(vault):
    data = os.urandom(1 << 20)
    with (vault.arrays / "vault").open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        mapped[5000 : 5000 + len(data)] = data
        mapped.flush()
        assert vault_bytes(vault, 5000 + len(data)) == bytes(5000) + data
    assert (vault.arrays / "vault").read_bytes() == bytes(5000) + data + bytes(SIZE - 5000 - len(data))


def test_closing_writes_back_what_was_changed_through_a_mapping(vault):
    with (vault.arrays / "vault").open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        mapped[:4] = b"kept"
    assert vault_bytes(vault, 4) == b"kept"


def test_qemu_img_converts_onto_a_device_with_n_and_is_refused_without(vault, run, requires, image):
    requires("qemu-img")
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "raw")
    refused = run(*convert, image, vault.arrays / "vault", check=False)
    assert refused.returncode == 1
    assert "Operation not permitted" in refused.stderr
    run(*convert, "-n", image, vault.arrays / "vault")
    run("cmp", image, vault.arrays / "vault")


@pytest.mark.parametrize("truncate", ["ignore", "discard"])
def test_qemu_img_converts_without_n_where_truncation_is_allowed(truncate, mount, run, requires, tmp_path):
    requires("qemu-img")
    mounted = mount({"name": "vault", "truncate": truncate})
    overwrite(mounted.arrays / "vault", b"old" * 1000)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(SIZE)
        file.seek(1 << 20)
        file.write(os.urandom(100_000))
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", sparse, mounted.arrays / "vault")
    if truncate == "discard":
        run("cmp", sparse, mounted.arrays / "vault")
    else:  # as on a block device: qemu-img skips the holes, and what was there stays
        assert (mounted.arrays / "vault").read_bytes()[1 << 20 :] == sparse.read_bytes()[1 << 20 :]

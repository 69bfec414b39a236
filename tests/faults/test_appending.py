"""New files on ext4, for which space is taken in large steps before they are written."""
import errno
import os
import random

import pytest
from imgtk_test import KIB, MIB, allocated, environment, execute, imgtk, make_raw, missing, qemu_img, tool

pytestmark = pytest.mark.unsanitized  # a sanitizer must be the first library
SIZE = 40 * MIB


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_raw(tmp_path_factory.mktemp("source") / "source.raw", SIZE, [(0, random.Random(7).randbytes(SIZE))])


def file_system(folder, size):
    make_raw(folder / "disk", size)
    execute([tool("mkfs.ext4"), "-q", "-O", "^has_journal", "-m", "0", folder / "disk"])
    (folder / "mounted").mkdir()
    if execute([tool("mount"), "-o", "loop", folder / "disk", folder / "mounted"], code=None).code:
        missing("ext4 cannot be mounted")
    return folder / "mounted"


@pytest.fixture(params=[200 * MIB, 60 * MIB], ids=["much room", "room for the file"])
def ext4(tmp_path, request):
    yield file_system(tmp_path, request.param)
    execute([tool("umount"), tmp_path / "mounted"])


def convert(shim, source, folder, fmt, calls, at=0, fault=0):
    """The result, and how often the calls were made."""
    log = folder.parent / "log"
    log.unlink(missing_ok=True)
    env = environment(LD_PRELOAD=shim, FAULT_LOG=log, FAULT_CALLS=calls, FAULT_AT=at, FAULT_ERRNO=fault)
    result = imgtk("convert", "-f", "raw", "-O", fmt, source, folder / "target", code=None, env=env)
    return result, (log.read_text() if log.exists() else "").count(".")


def assert_right(result, source, folder, fmt):
    assert result.code == 0 and result.err == "", result
    target = folder / "target"
    assert allocated(target) <= target.stat().st_size + 64 * KIB
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", fmt, source, target).out


@pytest.mark.parametrize("fmt", ["qcow2", "vmdk"])
def test_what_was_not_needed_is_given_back(shim, source, ext4, fmt):
    result, steps = convert(shim, source, ext4, fmt, "fallocate")
    assert steps == 1
    assert_right(result, source, ext4, fmt)


@pytest.mark.parametrize("fault", [errno.EOPNOTSUPP, errno.ENOSPC])
def test_without_the_step_it_goes_on(shim, source, ext4, fault):
    result, steps = convert(shim, source, ext4, "qcow2", "fallocate", 1, fault)
    assert steps == 1
    assert_right(result, source, ext4, "qcow2")


def test_a_file_that_keeps_too_much_gets_no_name(shim, source, ext4):
    _, count = convert(shim, source, ext4, "qcow2", "ftruncate")
    (ext4 / "target").unlink()
    result, _ = convert(shim, source, ext4, "qcow2", "ftruncate", count, errno.EIO)
    assert result.code == 1 and "cannot give back the space beyond its end" in result.err, result
    assert sorted(os.listdir(ext4)) == ["lost+found"]


@pytest.mark.parametrize("fmt", ["raw", "vpc", "vdi"])
def test_formats_that_leave_holes_take_nothing_ahead(shim, source, ext4, fmt):
    _, steps = convert(shim, source, ext4, fmt, "fallocate")
    assert steps == 0


@pytest.fixture
def roomy(tmp_path):
    yield file_system(tmp_path, 200 * MIB)
    execute([tool("umount"), tmp_path / "mounted"])


def leave(folder, room):
    with open(folder / "other", "wb") as other:
        os.sync()
        state = os.statvfs(folder)
        os.posix_fallocate(other.fileno(), 0, state.f_bavail * state.f_bsize - room)


@pytest.mark.parametrize("fmt", ["qcow2", "vmdk"])
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_without_room_gets_what_was_taken_ahead(shim, source, roomy, fmt, fault):
    _, count = convert(shim, source, roomy, fmt, "pwrite")
    (roomy / "target").unlink()
    result, _ = convert(shim, source, roomy, fmt, "pwrite", count, fault)
    assert_right(result, source, roomy, fmt)


@pytest.mark.parametrize("fmt", ["qcow2", "vmdk"])
def test_hardly_more_room_than_the_step(shim, source, roomy, fmt):
    for spare in range(-5, 1):
        leave(roomy, 80 * MIB + spare * (64 * KIB if fmt == "qcow2" else 12 * KIB))
        result, _ = convert(shim, source, roomy, fmt, "")
        assert_right(result, source, roomy, fmt)
        (roomy / "target").unlink()


def test_parts_take_nothing_ahead(tmp_path, roomy):
    """Each would keep it until all of them are whole."""
    data = random.Random(8).randbytes(20 * MIB)
    source = make_raw(tmp_path / "source.raw", 6 << 30, [(part << 31, data) for part in range(3)])
    leave(roomy, 80 * MIB)
    imgtk("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", source, roomy / "target")

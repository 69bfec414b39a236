"""Storage that fails, is full, or goes away, and processes that are killed: nothing that looks complete may be left."""
import errno
import json
import os
import random
import signal
import subprocess
from functools import lru_cache

import pytest
from imgtk_test import (KIB, MIB, assert_same_bytes, compressible, digest, environment, execute, imgtk,
                        imgtk_fails, make_raw, missing, qemu_img, tool)
from slowly import start_slowly, wait_for_calls

UUID = "11223344-5566-7788-99aa-bbccddeeff00"
TARGETS = {
    "raw": "", "qcow2": "", "vdi": f"uuid={UUID}", "vpc": f"uuid={UUID},timestamp=1700000000,force_size=on",
    "vhdx": f"uuid={UUID}", "vmdk": "cid=1234", "vmdk-flat": "cid=1234,subformat=monolithicFlat",
    "vmdk-split": "cid=1234,subformat=twoGbMaxExtentSparse", "vmdk-stream": "cid=1234,subformat=streamOptimized",
    "qcow2-data": "data_file=data.img,data_file_raw=on", "qcow2-full": "preallocation=full", "raw-full": "preallocation=full",
    "raw-n": "", "qcow2-c": "",
}
SINGLE = [name for name in TARGETS if name not in ("vmdk-flat", "vmdk-split", "qcow2-data", "raw-n")]


@lru_cache
def installed():
    return {module["name"] for module in json.loads(imgtk("formats", "--output=json").out)}


def words_for(name, source, target):
    fmt = name.split("-")[0]
    if fmt not in installed():
        pytest.skip(f"the format {fmt} is not built")
    words = ["convert", "-m", "2", "-O", fmt]
    if TARGETS[name]:
        words += ["-o", TARGETS[name]]
    words += ["-n"] if name.endswith("-n") else ["-c"] if name.endswith(("-c", "-stream")) else []
    return [*words, source, target]


def assert_one_line(result):
    assert result.code == 1, result
    assert len(result.err.splitlines()) == 1 and result.err.startswith("imgtk: "), result


def files(folder):
    return sorted(os.listdir(folder))


def make_source(folder, size=320 * KIB):
    rng = random.Random(size)
    return make_raw(folder / "source.raw", size, [(0, compressible(100 * KIB)), (130 * KIB, rng.randbytes(70 * KIB)),
                                                  (size - 600, b"e" * 600)])


class Faults:
    """
    Runs one conversion again and again, in a folder of its own, with a fault in one call after the other. From raw, or
    from an image of the kind (of TARGETS) that is named.
    """

    def __init__(self, shim, folder, name, source=None):
        self.shim, self.folder, self.name = shim, folder, name
        self.source = self.image = make_source(folder)
        if source:
            self.image = folder / "source.image"
            imgtk(*words_for(source, self.source, self.image))
        self.work = folder / "work"
        self.log = folder / "log"
        self.work.mkdir()
        self.clear()
        self.good = {}
        result = self.run(0, 0)
        assert result.code == 0, result
        self.good = {name: digest(self.work / name) for name in files(self.work)}
        self.count = len(self.log.read_text())

    def clear(self):
        for name in files(self.work):
            (self.work / name).unlink()
        if self.name.endswith("-n"):
            make_raw(self.work / "target", 400 * KIB, [(0, b"\xaa" * 400 * KIB)])
        else:
            (self.work / "target").write_bytes(b"the previous file")

    def run(self, at, fault, calls=None):
        self.clear()
        self.log.unlink(missing_ok=True)
        env = environment(LD_PRELOAD=self.shim, FAULT_LOG=self.log, FAULT_AT=at, FAULT_ERRNO=fault, FAULT_CALLS=calls,
                          SOURCE_DATE_EPOCH=1700000000)
        return imgtk(*words_for(self.name, self.image, "target"), code=None, cwd=self.work, env=env, timeout=60)

    def hit(self):
        return self.log.read_text().replace(".", "")

    def assert_right(self, result):
        now = {name: digest(self.work / name) for name in files(self.work)}
        if now != self.good:  # another layout of the same disk
            assert now.keys() == self.good.keys(), (self.hit(), result)
            fmt = self.name.split("-")[0]
            assert "identical" in qemu_img("compare", "-f", "raw", "-F", fmt, self.source, "target",
                                           cwd=self.work).out, self.hit()

    def assert_nothing_left(self, result):
        assert_one_line(result)
        if self.name.endswith("-n"):
            assert files(self.work) == ["target"]
            return
        if self.hit() == "fsync" and digest(self.work / "target") == self.good["target"]:
            return  # of the folder: the file is whole and has its name, but that may not last
        assert (self.work / "target").read_bytes() == b"the previous file", (self.hit(), result)
        # A file beside it may have its name when the last step fails; nothing refers to it then.
        last_step = self.hit() in ("fsync", "linkat", "rename")
        assert files(self.work) == ["target"] or last_step and len(self.good) > 1, (self.hit(), result)


def try_every_call(faults, fault, calls=None):
    seen = 0
    for at in range(1, 2000):
        result = faults.run(at, fault, calls)
        if not faults.hit():
            break
        seen += 1
        if result.code == 0:
            faults.assert_right(result)
        else:
            assert fault not in (0, errno.EINTR), (faults.hit(), result)
            faults.assert_nothing_left(result)
    assert seen > 0
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_every_call_fails_once(tmp_path, shim, name):
    faults = Faults(shim, tmp_path, name)
    try_every_call(faults, errno.EIO)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_disk_is_full_at_every_write(tmp_path, shim, name):
    faults = Faults(shim, tmp_path, name)
    try_every_call(faults, errno.ENOSPC, "pwrite,fallocate,ftruncate,copy_file_range,linkat")
    # The last one was beyond the end: a write that fails says why.
    result = faults.run(1, errno.ENOSPC, "pwrite")
    if faults.hit() and result.code:
        assert "No space left on device" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk", "vhdx", "qcow2-c"])
@pytest.mark.parametrize("fault", [0, errno.EINTR])
def test_short_and_interrupted_calls_go_on(tmp_path, shim, name, fault):
    faults = Faults(shim, tmp_path, name)
    try_every_call(faults, fault, "pread,pwrite,copy_file_range" if fault == 0 else
                   "pread,pwrite,copy_file_range,ftruncate,fsync,fallocate")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk-flat", "raw-n"])
def test_every_file_fails_to_open_once(tmp_path, shim, name):
    faults = Faults(shim, tmp_path, name)
    try_every_call(faults, errno.EIO, "open,lseek,fstat")


@pytest.mark.unsanitized
@pytest.mark.parametrize("name", ["raw", "vmdk-split", "raw-n"])
def test_what_only_closing_tells_is_heard(tmp_path, shim, name):
    """A file server's client keeps what was written until then: with --no-sync nobody asks it before."""
    source, log, told = make_source(tmp_path), tmp_path / "log", []
    work = tmp_path / "work"
    for at in range(1, 200):
        work.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        if name.endswith("-n"):
            make_raw(work / "target", 400 * KIB)
        env = environment(LD_PRELOAD=shim, FAULT_CALLS="close", FAULT_AT=at, FAULT_ERRNO=errno.EDQUOT, FAULT_LOG=log)
        words = [*words_for(name, source, "target"), "--no-sync"]
        result = imgtk(*words, code=None, cwd=work, env=env)
        if "close" not in log.read_text():
            break
        if result.code:
            assert_one_line(result)
            assert "Disk quota exceeded" in result.err
            assert name.endswith("-n") or "target" not in files(work)
            told.append(at)
        for left in files(work):
            (work / left).unlink()
    assert len(told) == (2 if name == "vmdk-split" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [errno.EIO, errno.EINTR, 0])
@pytest.mark.parametrize("source", ["qcow2", "qcow2-c", "vmdk", "vmdk-stream", "vdi", "vpc", "vhdx"])
def test_every_read_of_an_image_fails_once(tmp_path, shim, source, fault):
    faults = Faults(shim, tmp_path, "raw", source)
    try_every_call(faults, fault, "pread,copy_file_range")


# ---- Full file systems ---------------------------------------------------------

def mounted(folder, *words):
    done = subprocess.run([tool("mount"), *map(str, words), folder], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        missing(f"cannot mount: {done.stderr.strip()}")
    return folder


@pytest.fixture(params=["tmpfs", "ext4"])
def full(tmp_path, request):
    """A file system with about 2 MiB of room."""
    folder = tmp_path / "full"
    folder.mkdir()
    if request.param == "tmpfs":
        mounted(folder, "-t", "tmpfs", "-o", "size=2m", "none")
    else:
        make_raw(tmp_path / "disk", 3 * MIB)
        execute([tool("mkfs.ext4"), "-q", "-O", "^has_journal", "-m", "0", tmp_path / "disk"])
        mounted(folder, "-o", "loop", tmp_path / "disk")
    yield folder
    execute([tool("umount"), folder])


@pytest.mark.parametrize("name", TARGETS)
def test_a_full_file_system(tmp_path, full, name):
    source = make_raw(tmp_path / "source.raw", 6 * MIB, [(0, random.Random(4).randbytes(6 * MIB))])
    before = files(full)
    if name.endswith("-n"):
        make_raw(full / "target", 6 * MIB)
        imgtk_fails(*words_for(name, source, "target"), cwd=full, match="target.*: .*No space left on device")
        return
    imgtk_fails(*words_for(name, source, "target"), cwd=full, match="target.*: .*No space left on device")
    assert files(full) == before
    (full / "target").write_bytes(b"the previous file")
    imgtk_fails(*words_for(name, source, "target"), cwd=full, match="target.*: .*No space left on device")
    assert (full / "target").read_bytes() == b"the previous file"


@pytest.fixture
def metered(tmp_path):
    """A folder with a quota of 2 MiB on a file system with more room."""
    mount = tmp_path / "mount"
    mount.mkdir()
    make_raw(tmp_path / "disk", 128 * MIB)
    execute([tool("mkfs.btrfs"), "-q", tmp_path / "disk"])
    mounted(mount, "-o", "loop", tmp_path / "disk")
    try:
        execute([tool("btrfs"), "subvolume", "create", mount / "metered"])
        execute([tool("btrfs"), "quota", "enable", mount])
        execute([tool("btrfs"), "qgroup", "limit", "2M", mount / "metered"])
        yield mount / "metered"
    finally:
        execute([tool("umount"), mount])


@pytest.mark.parametrize("name", TARGETS)
def test_a_full_quota(tmp_path, metered, name):
    source = make_raw(tmp_path / "source.raw", 6 * MIB, [(0, random.Random(4).randbytes(6 * MIB))])
    (metered / "target").write_bytes(b"the previous file")
    if name.endswith("-n"):
        os.truncate(metered / "target", 6 * MIB)
    before = files(metered)
    imgtk_fails(*words_for(name, source, "target"), cwd=metered, match="target.*: .*Disk quota exceeded")
    assert files(metered) == before
    if not name.endswith("-n"):
        assert (metered / "target").read_bytes() == b"the previous file"


# ---- Folders -------------------------------------------------------------------

def test_a_folder_that_is_not_there(tmp_path):
    imgtk_fails("convert", "-O", "raw", make_source(tmp_path), tmp_path / "gone/target", match="No such file or directory")


def test_a_folder_that_is_read_only(tmp_path):
    source = make_source(tmp_path)
    (tmp_path / "folder").mkdir()
    folder = mounted(tmp_path / "folder", "-t", "tmpfs", "-o", "ro", "none")
    try:
        imgtk_fails("convert", "-O", "raw", source, folder / "target", match="Read-only file system")
    finally:
        execute([tool("umount"), folder])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw", "vmdk"])
def test_every_call_fails_once_where_a_file_needs_a_name(tmp_path, shim, monkeypatch, name):
    monkeypatch.setenv("FAULT_NAMED", "1")
    faults = Faults(shim, tmp_path, name)
    try_every_call(faults, errno.EIO)


@pytest.mark.unsanitized
def test_a_hidden_file_is_never_more_open_than_the_one_that_it_replaces(tmp_path, shim):
    """Where a file needs a name from the beginning: who opened it early could read all that comes."""
    source, work, log = make_source(tmp_path), tmp_path / "work", tmp_path / "log"
    work.mkdir()
    (work / "target").touch(mode=0o600)
    seen = []
    for at in range(1, 200):
        log.unlink(missing_ok=True)
        env = environment(LD_PRELOAD=shim, FAULT_CALLS="fstat,pwrite,fsync", FAULT_AT=at, FAULT_KILL="yes",
                          FAULT_NAMED="yes", FAULT_LOG=log)
        if imgtk(*words_for("raw", source, "target"), code=None, cwd=work, env=env).code == 0:
            break
        for path in work.glob(".target.imgtk-*"):
            seen.append(path.stat().st_mode & 0o777)
            path.unlink()
    assert len(seen) > 2 and set(seen) == {0o600}
    assert files(work) == ["target"] and (work / "target").stat().st_mode & 0o777 == 0o600


def test_a_target_that_is_a_folder(tmp_path):
    source = make_source(tmp_path)
    (tmp_path / "folder").mkdir()
    imgtk_fails("convert", "-O", "raw", source, tmp_path / "folder", match="irectory")
    assert files(tmp_path) == ["folder", "source.raw"] and not files(tmp_path / "folder")


# ---- Killed --------------------------------------------------------------------

def stripes(folder):
    """2 MiB of data with holes, so that many calls write it."""
    pieces = [(at, random.Random(at).randbytes(64 * KIB)) for at in range(0, 8 * MIB, 256 * KIB)]
    return make_raw(folder / "source.raw", 8 * MIB, pieces)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw", "qcow2", "qcow2-c", "vmdk", "vhdx", "vdi", "vpc"])
def test_killed_at_any_moment(tmp_path, shim, name):
    source = stripes(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    words = words_for(name, source, "target")
    start_slowly(shim, work, *words, delay=0).communicate()
    good, calls = digest(work / "target"), (work / "log").stat().st_size
    reproducible = name in ("raw", "qcow2", "qcow2-c")
    for moment in random.Random(name).sample(range(calls), min(calls, 8)):
        for name_left in files(work):
            (work / name_left).unlink()
        (work / "target").write_bytes(b"the previous file")
        process = start_slowly(shim, work, *words)
        wait_for_calls(process, work / "log", moment)
        process.kill()
        process.communicate()
        left = work / "target"
        if left.read_bytes()[:17] != b"the previous file":
            if reproducible:
                assert digest(left) == good
            else:
                assert "identical" in qemu_img("compare", "-f", "raw", "-F", name.split("-")[0], source, left).out


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["qcow2", "vmdk", "vhdx", "vdi", "vpc"])
@pytest.mark.parametrize("old", ["zeroes", "image"])
def test_killed_while_it_writes_in_place(tmp_path, shim, fmt, old):
    """With -n there is no other name to write under: what makes it an image is written last."""
    source = stripes(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    words = words_for(fmt, source, "target")
    start_slowly(shim, work, *words, delay=0).communicate()
    calls = (work / "log").stat().st_size
    for moment in random.Random(fmt).sample(range(calls - 3), min(calls - 3, 6)):
        for name_left in files(work):
            (work / name_left).unlink()
        if old == "zeroes":
            make_raw(work / "target", 12 * MIB)
        else:
            older = make_raw(tmp_path / "older.raw", 9 * MIB, [(0, b"old" * MIB)])
            qemu_img("convert", "-f", "raw", "-O", fmt, older, work / "target")
        before = digest(work / "target")
        process = start_slowly(shim, work, words[0], "-n", *words[1:])
        wait_for_calls(process, work / "log", moment)
        process.kill()
        process.communicate()
        if digest(work / "target") == before:
            continue
        result = imgtk("convert", "-f", fmt, "-O", "raw", work / "target", tmp_path / "back", code=None)
        if result.code == 0:
            assert_same_bytes(tmp_path / "back", source)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", SINGLE)
def test_a_signal_leaves_nothing(tmp_path, shim, name, number):
    source = stripes(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    process = start_slowly(shim, work, *words_for(name, source, "target"), delay=30000)
    wait_for_calls(process, work / "log", 3)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1].decode()
    if process.returncode == 0:  # it had all but ended
        assert "target" in files(work)
        return
    assert process.returncode == 1, err
    assert len(err.splitlines()) == 1 and err.startswith("imgtk: "), err
    assert files(work) == ["log"]


# ---- A disk that keeps something else -----------------------------------------------------

@pytest.mark.unsanitized
@pytest.mark.parametrize("words", ["raw", "qcow2", "qcow2 -c", "vmdk -o subformat=twoGbMaxExtentSparse", "vhdx"])
def test_verify_finds_what_was_written_wrong(shim, tmp_path, words):
    """The last byte of one write after the other is inverted on its way to the disk."""
    source, target = make_source(tmp_path, 200 * KIB), tmp_path / "target"
    messages = []
    for at in range(1, 200):
        (tmp_path / "log").unlink(missing_ok=True)
        target.write_bytes(b"the previous file")
        env = environment(LD_PRELOAD=shim, FAULT_LOG=tmp_path / "log", FAULT_FLIP=1, FAULT_CALLS="pwrite", FAULT_AT=at)
        result = imgtk("convert", "-m", "1", "-O", *words.split(), "--verify", source, target, code=None, env=env)
        messages.append(result.err)
        if result.code == 0:  # a byte that has no meaning, as behind the end of a table
            assert imgtk("compare", "-f", "raw", source, target).out == "Images are identical.\n"
        else:
            assert "verification failed: " in result.err and target.read_bytes() == b"the previous file"
        if "pwrite" not in (tmp_path / "log").read_text():
            break
    assert result.code == 0 and sum(map(bool, messages)) > 0, messages

"""Sources in the page cache, which are written from where they lie: what happens to them meanwhile, and to the target."""
import errno
import os
import random
import subprocess
import time

import pytest
from imgtk_test import KIB, MIB, environment, execute, imgtk, make_raw, missing, qemu_img, tool
from slowly import start_slowly, wait_for_calls

pytestmark = pytest.mark.unsanitized  # a sanitizer must be the first library

FORMATS = ["raw", "qcow2", "vhdx", "vpc", "vdi"]


@pytest.fixture
def source(tmp_path):
    path = make_raw(tmp_path / "source.raw", 8 * MIB, [(0, random.Random(8).randbytes(8 * MIB))])
    with open(path, "rb") as file:
        file.read()
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            missing(f"this file system does not tell what is in the page cache: {error}")
    return path


def calls(shim, source, kind, **changes):
    """How many calls of one kind a conversion makes."""
    log = source.parent / "log"
    log.unlink(missing_ok=True)
    env = environment(LD_PRELOAD=shim, FAULT_LOG=log, FAULT_CALLS=kind, **changes)
    imgtk("convert", "-m", "2", "-O", "qcow2", source, source.parent / "target", env=env)
    return log.stat().st_size


def test_what_is_cached_is_not_read(shim, source):
    assert calls(shim, source, "pread", FAULT_CACHED="yes") + 14 <= calls(shim, source, "pread")


@pytest.mark.parametrize("options", [["-c"], ["--checksum"], ["--verify"], ["-S", "0"], ["-m", "1"], ["--rate-limit", "100M"]])
def test_the_disk_is_the_same(shim, source, tmp_path, options):
    with open(source, "r+b") as file:
        file.seek(3 * MIB + 512)
        file.write(bytes(900 * KIB))  # zeroes among the data
    env = environment(LD_PRELOAD=shim, FAULT_CACHED="yes")
    imgtk("convert", *options, "-O", "qcow2", source, tmp_path / "target", env=env)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, tmp_path / "target").out


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_source_that_is_cut_is_told(shim, source, tmp_path, fmt, workers):
    work = tmp_path / "work"
    work.mkdir()
    process = start_slowly(shim, work, "convert", "-m", workers, "-O", fmt, source, "target", calls="pwrite", delay=50_000,
                           FAULT_CACHED="yes")
    wait_for_calls(process, work / "log", 4)
    time.sleep(0.02)  # the next write is under way, and waits before it looks at its bytes
    os.truncate(source, 256 * KIB)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1, err
    assert err.startswith("imgtk: ") and len(err.splitlines()) == 1 and "source.raw: " in err, err
    assert "made shorter" in err or workers > 1 and "ends at byte" in err, err
    assert os.listdir(work) == ["log"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_target_that_fails_is_told(shim, source, tmp_path, fmt):
    """Not the source."""
    work = tmp_path / "work"
    work.mkdir()
    for at in range(1, 100):
        env = environment(LD_PRELOAD=shim, FAULT_CACHED="yes", FAULT_CALLS="pwrite", FAULT_AT=at, FAULT_ERRNO=errno.ENOSPC)
        result = imgtk("convert", "-m", "2", "-O", fmt, source, work / "target", env=env, code=None)
        if result.code == 0:
            break
        assert result.code == 1 and "target: " in result.err and "No space left" in result.err, result
        assert os.listdir(work) == []
    assert result.code == 0 and at > 8


TOGGLER = """
#include <fcntl.h>
#include <sys/mman.h>
int main(int count, char **words)
{
    volatile char *bytes = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, open(words[1], O_RDWR), 0);
    for (unsigned at = 0; count == 2; at = (at + 4096) % (1 << 20))
        for (int i = 0; i < 2000; i++)
            bytes[at] = (char)(i % 2 * 0xaa);
}
"""


@pytest.fixture(scope="module")
def toggler(tmp_path_factory):
    """A program that lets the first byte of each page of a file of 1 MiB come and go."""
    folder = tmp_path_factory.mktemp("toggler")
    (folder / "toggler.c").write_text(TOGGLER)
    execute([tool("gcc"), "-O1", "-o", folder / "toggler", folder / "toggler.c"])
    return folder / "toggler"


@pytest.mark.parametrize("words", [["-O", "qcow2"], ["-O", "vpc"], ["-O", "vdi"], ["-O", "qcow2", "-B", "base.raw", "-F", "raw"],
                                   ["-O", "qcow2", "--verify"]], ids=["qcow2", "vpc", "vdi", "backing", "verify"])
def test_what_is_written_meanwhile_changes_nothing_else(toggler, tmp_path, words):
    """Of the bytes that change, any may be there; all others are what they were, and the image is sound."""
    expected = bytearray(b"\xaa" * MIB)
    make_raw(tmp_path / "source.raw", MIB, [(0, bytes(expected))])
    make_raw(tmp_path / "base.raw", MIB, [(0, b"\x55" * MIB)])
    with subprocess.Popen([toggler, tmp_path / "source.raw"]) as process:
        try:
            for _ in range(30):
                imgtk("convert", "-f", "raw", *words, "source.raw", "target", cwd=tmp_path)
                imgtk("convert", "--no-sync", "-O", "raw", "target", "back.raw", cwd=tmp_path)
                found = bytearray((tmp_path / "back.raw").read_bytes()[:MIB])
                found[::4096] = expected[::4096]
                assert found == expected
        finally:
            process.kill()
    if "qcow2" in words:
        assert "No errors" in qemu_img("check", "-f", "qcow2", tmp_path / "target").out


def test_what_the_kernel_cannot_read_is_the_sources_fault(shim, source, tmp_path):
    env = environment(LD_PRELOAD=shim, FAULT_CACHED="yes", FAULT_CALLS="pwrite", FAULT_AT=4, FAULT_ERRNO=errno.EFAULT)
    result = imgtk("convert", "-m", "1", "-O", "vhdx", source, tmp_path / "target", env=env, code=1)
    assert result.err.startswith(f"imgtk: {source}: the file was made shorter"), result

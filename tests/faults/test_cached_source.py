"""Sources in the page cache, which are written from where they lie: what happens to them meanwhile, and to the target."""
import errno
import os
import random
import subprocess
import time

import pytest
from imgtk_test import IMGTK, KIB, MIB, digest, environment, imgtk, make_raw, missing, qemu_img

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


def start(shim, folder, *words, **changes):
    env = environment(LD_PRELOAD=shim, FAULT_LOG=folder / "log", FAULT_CACHED="yes", **changes)
    return subprocess.Popen([IMGTK, *map(str, words)], cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


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


def wait_for_writes(process, log, count):
    while process.poll() is None and (not log.exists() or log.stat().st_size < count):
        pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_source_that_is_cut_is_told(shim, source, tmp_path, fmt, workers):
    work = tmp_path / "work"
    work.mkdir()
    process = start(shim, work, "convert", "-m", workers, "-O", fmt, source, "target", FAULT_CALLS="pwrite",
                    FAULT_DELAY=50_000)
    wait_for_writes(process, work / "log", 4)
    time.sleep(0.02)  # the next write is under way, and waits before it looks at its bytes
    os.truncate(source, 256 * KIB)
    err = process.communicate(timeout=60)[1]
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
    assert at > 8


def test_a_source_that_is_written_meanwhile(shim, source, tmp_path):
    """Either bytes may be there, but the image is whole, and the source is not touched."""
    process = start(shim, tmp_path, "convert", "-O", "qcow2", source, "target", FAULT_CALLS="pwrite", FAULT_DELAY=2000)
    with open(source, "r+b") as file:
        while process.poll() is None:
            file.seek(random.randrange(8 * MIB - 64 * KIB))
            file.write(bytes(64 * KIB))
    before = digest(source)
    assert process.returncode == 0, process.communicate()
    process.communicate()
    assert "No errors" in qemu_img("check", "-f", "qcow2", tmp_path / "target").out
    assert digest(source) == before



"""convert --checksum and --verify: the digest of the whole disk in one pass, and a target that was read back."""
import os
import re
import subprocess

import pytest

from imgtk_test import (IMGTK, KIB, MIB, assert_same_bytes, compressible, environment, execute, imgtk, imgtk_fails,
                        make_image, make_raw, qemu_img, tool)

TARGETS = {
    "raw": ["raw"], "qcow2": ["qcow2"], "qcow2-4k": ["qcow2", "-o", "cluster_size=4k"], "qcow2-2M":
    ["qcow2", "-o", "cluster_size=2M"], "qcow2-c": ["qcow2", "-c"],
    "qcow2-data-file": ["qcow2", "-o", "data_file=d.raw"],
    "vmdk": ["vmdk"], "vmdk-split": ["vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
    "vmdk-stream": ["vmdk", "-o", "subformat=streamOptimized"], "vpc": ["vpc", "-o", "force_size=on"], "vhdx": ["vhdx"],
    "vdi": ["vdi"],
}


def checksum(*words):
    return imgtk("checksum", *words).out.split()[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """disk.raw: data and holes whose ends lie within blocks of the digest, over several pieces of work."""
    monkeypatch.chdir(tmp_path)
    make_raw("disk.raw", 9 * MIB + 64 * KIB, [
        (512 * 3, compressible(100 * KIB)), (300 * KIB, compressible(70 * KIB, seed=2)), (MIB, bytes(300 * KIB)),
        (3 * MIB + 4096, compressible(3 * MIB, seed=3)), (7 * MIB - 512, b"x" * 1024), (9 * MIB + 4096, b"end")])
    return tmp_path


@pytest.mark.threads
@pytest.mark.parametrize("name", TARGETS)
def test_every_format(folder, name):
    options = ["convert", "-m", "4", "-O", *TARGETS[name], "disk.raw"]
    imgtk(*options, "plain", env=environment(SOURCE_DATE_EPOCH=1))
    line = imgtk(*options, "target", "--checksum", "--verify", env=environment(SOURCE_DATE_EPOCH=1)).out
    assert line == f"{checksum('disk.raw')}  target\n" == imgtk("checksum", "target").out
    if name in ("raw", "qcow2", "qcow2-4k", "qcow2-c"):
        assert_same_bytes("plain", "target")


def test_every_algorithm(folder):
    line = imgtk("convert", "--checksum=blake2b", "disk.raw", "out.raw").out
    assert line == imgtk("checksum", "-a", "blake2b", "out.raw").out
    imgtk_fails("convert", "--checksum=md5", "disk.raw", "other.raw", match="Unknown digest 'md5'")
    assert not os.path.exists("other.raw")


def test_sources_one_behind_the_other(folder):
    make_raw("more.raw", 200 * KIB + 512, [(100 * KIB, b"more")])
    line = imgtk("convert", "--checksum", "-O", "qcow2", "more.raw", "disk.raw", "more.raw", "both.qcow2").out
    assert line == imgtk("checksum", "both.qcow2").out


@pytest.mark.parametrize("words", [["-S", "0"], ["-S", "1M"], ["--no-extents"], ["--salvage"]], ids=" ".join)
def test_ways_of_reading(folder, words):
    line = imgtk("convert", "--checksum", "--verify", *words, "-O", "raw", "disk.raw", "out").out
    assert line == f"{checksum('disk.raw')}  out\n"


@pytest.mark.parametrize("source", ["top.qcow2", "flat.raw"])
def test_a_backing_file_counts(folder, source):
    """The digest is of the whole disk, though what the backing file has is not written: told by the chain, or read."""
    make_image("top.qcow2", "12M", backing="disk.raw", backing_fmt="raw",
               writes=["write -P 7 130k 3k", "write -z 4M 1M", "write -P 9 11M 70k"])
    imgtk("convert", "-O", "raw", "top.qcow2", "flat.raw")
    words = ["--checksum", "--verify", "-O", "qcow2", "-B", "disk.raw", "-F", "raw"]
    line = imgtk("convert", *words, source, "new.qcow2").out
    assert line.split()[0] == checksum("flat.raw") == checksum("new.qcow2")
    assert os.path.getsize("new.qcow2") < 3 * MIB


def test_pipes(folder):
    """The source is read once, the sum goes to where the image does not."""
    with subprocess.Popen([IMGTK, "convert", "-O", "qcow2", "disk.raw", "-"], stdout=subprocess.PIPE,
                          env=environment()) as writer:
        done = subprocess.run([IMGTK, "convert", "--checksum", "-O", "raw", "-", "-"], stdin=writer.stdout,
                              capture_output=True, env=environment(), check=True)
    assert done.stderr.decode() == f"{checksum('disk.raw')}  -\n"
    assert done.stdout == (folder / "disk.raw").read_bytes()
    for target in ("-", "fd:1", "/dev/stdout"):
        imgtk_fails("convert", "--verify", "disk.raw", target, match="cannot be read back")
    os.mkfifo("fifo")
    with subprocess.Popen(["cat", "fifo"], stdout=subprocess.DEVNULL) as reader:
        imgtk_fails("convert", "--verify", "disk.raw", "fifo", match="cannot be read back")
        reader.wait(10)
    imgtk_fails("convert", "--verify", "disk.raw", "null:", match="cannot be read back")


def test_in_place(folder):
    """Over old content, which holes of the source replace by zeroes; what lies behind the disk does not count."""
    make_raw("old.raw", 10 * MIB, [(0, b"\xaa" * 10 * MIB)])
    line = imgtk("convert", "--checksum", "--verify", "-n", "-O", "raw", "disk.raw", "old.raw").out
    assert line == f"{checksum('disk.raw')}  old.raw\n"
    assert (folder / "old.raw").read_bytes()[-100:] == b"\xaa" * 100


def test_differences_have_no_digest_of_the_disk(folder):
    make_raw("base.raw", 9 * MIB)
    for option in ("--checksum", "--verify"):
        imgtk_fails("convert", option, "--relative-to", "base.raw", "disk.raw", "out.raw", match="of the whole disk")


def test_progress_goes_on_while_verifying(folder):
    imgtk("convert", "-O", "qcow2", "disk.raw", "disk.qcow2")
    execute(["sh", "-c", f"{IMGTK} convert --verify --progress=3 disk.qcow2 out.raw 3>rows"])
    rows = [int(row.split("/")[0]) for row in (folder / "rows").read_text().split()]
    assert rows == sorted(rows) and rows[0] == 0 and rows[-1] == 100 and any(50 < row < 100 for row in rows)


@pytest.mark.unsanitized
def test_reads_the_disk_and_not_the_page_cache(folder):
    trace = execute([tool("strace"), "-f", "-e", "trace=fdatasync,fadvise64,linkat", IMGTK, "convert", "--verify",
                     "disk.raw", "out.raw"]).err
    calls = re.findall(r"fdatasync|DONTNEED|linkat", trace)
    assert calls[:3] == ["fdatasync", "DONTNEED", "linkat"], trace


def test_named_like_a_qemu_image(folder):
    """--verify does not ask again for what the user has allowed: a backing file elsewhere, a data file elsewhere."""
    os.mkdir("elsewhere")
    qemu_img("create", "-q", "-f", "qcow2", "elsewhere/base.qcow2", "9M")
    os.mkdir("here")
    base, data = folder / "elsewhere/base.qcow2", folder / "elsewhere/data.raw"
    imgtk("convert", "--verify", "-O", "qcow2", "-B", base, "-F", "qcow2", "disk.raw", "here/top.qcow2")
    imgtk("convert", "--verify", "-O", "qcow2", "-o", f"data_file={data}", "disk.raw", "here/own.qcow2")

"""imgtk measure tells what qemu-img tells, for more formats, and what convert then makes."""
import json
import os
import random

import pytest

from imgtk_test import KIB, MIB, compressible, imgtk, imgtk_fails, make_image, make_raw, qemu_img


def make_disks(folder):
    make_raw(folder / "a.raw", 10 * MIB, [(MIB, compressible(MIB)), (5 * MIB, compressible(300 * KIB, seed=2))])
    qemu_img("convert", "-O", "qcow2", folder / "a.raw", folder / "a.qcow2")
    qemu_img("convert", "-O", "qcow2", "-o", "compat=0.10", folder / "a.raw", folder / "old.qcow2")
    make_image(folder / "top.qcow2", None, backing="a.qcow2", backing_fmt="qcow2", writes=["write 8M 64k"])


@pytest.fixture
def folder(tmp_path, fill, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, make_disks))
    return tmp_path


SAME = [
    "-O qcow2 a.raw", "-O raw a.qcow2", "-O qcow2 a.qcow2", "a.raw", "-O qcow2 top.qcow2", "-f raw -O qcow2 a.qcow2",
    "--size 10G", "--size 10G -O qcow2", "-O qcow2 -o cluster_size=4k --size 1G", "-O qcow2 -o cluster_size=2M a.raw",
    "-O qcow2 -o preallocation=full a.raw", "-O qcow2 -o refcount_bits=64,cluster_size=4k a.raw",
    "-O qcow2 -o extended_l2=on --size 1T", "-O qcow2 --size 0", "-O qcow2 -o compat=0.10 a.qcow2",
    "-O qcow2 old.qcow2",
]


@pytest.mark.parametrize("words", SAME)
def test_as_qemu_img(folder, words):
    theirs = qemu_img("measure", *words.split())
    assert imgtk("measure", *words.split()).out == theirs.out


@pytest.mark.parametrize("words", SAME)
def test_as_qemu_img_and_the_size_of_the_file(folder, words):
    """The keys of qemu-img come in its order, and one more behind them."""
    theirs = qemu_img("measure", "--output=json", *words.split()).out
    ours = imgtk("measure", "--output=json", *words.split()).out
    size = json.loads(ours)["file-size"]
    assert ours == theirs.replace("\n}", f',\n    "file-size": {size}\n}}')
    assert imgtk("measure", "-v", *words.split()).out.splitlines()[-1] == f"file size: {size}"


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vdi", "vpc", "vhdx", "vmdk"])
def test_convert_makes_what_was_measured(folder, fmt):
    told = json.loads(imgtk("measure", "-O", fmt, "--output=json", "a.qcow2").out)
    imgtk("convert", "-O", fmt, "a.qcow2", "out")
    size = os.path.getsize("out")
    assert size <= told["required"] <= told["fully-allocated"]
    if not told.get("upper-bound") and fmt != "qcow2":
        assert size == told["required"]
    if fmt == "qcow2":
        assert told["required"] - size <= 2 * 65536


@pytest.mark.parametrize("words", ["qcow2 -o preallocation=metadata", "qcow2 -o cluster_size=512,refcount_bits=64",
                                   "qcow2 -o cluster_size=512,refcount_bits=64,preallocation=metadata",
                                   "vmdk -o subformat=monolithicFlat", "vmdk -o subformat=streamOptimized"])
def test_never_less_than_convert_makes(tmp_path, words):
    disk = make_raw(tmp_path / "full.raw", 5 * MIB, [(0, random.Random(1).randbytes(5 * MIB))])
    told = json.loads(imgtk("measure", "--output=json", "-O", *words.split(), disk).out)
    (tmp_path / "out").mkdir()
    imgtk("convert", "-O", *words.split(), disk, tmp_path / "out/image")
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert size <= told["required"] == told["fully-allocated"] and told["required"] - size <= size // 100
    assert told.get("upper-bound", False) == words.startswith("vmdk")


def test_what_cannot_be_made_is_not_measured(tmp_path):
    imgtk_fails("measure", "-O", "vmdk", "--size", "0", match="cannot have a size of 0")


def test_compressed_is_an_upper_bound(folder):
    told = json.loads(imgtk("measure", "-c", "-O", "qcow2", "--output=json", "a.qcow2").out)
    assert told["upper-bound"] is True
    imgtk("convert", "-c", "-O", "qcow2", "a.qcow2", "out")
    assert os.path.getsize("out") <= told["required"]


@pytest.mark.parametrize("words, message", [
    ("", "Either --size N or one filename must be specified."),
    ("--size 1G a.raw", "--size N cannot be used together with a filename."),
    ("a.raw a.qcow2", "At most one filename argument is allowed."),
    ("-O foo a.raw", "Unknown file format 'foo'"),
    ("-O qcow2 nx", "Could not open 'nx': No such file or directory"),
    ("-O qcow2 -o foo=1 a.raw", "unknown option 'foo'"),
    ("--size x", "Invalid size 'x'"),
])
def test_mistakes(folder, words, message):
    assert message in imgtk("measure", *words.split(), code=1).err.splitlines()[0]


def test_snapshot(folder):
    qemu_img("snapshot", "-c", "one", "a.qcow2")
    assert imgtk("measure", "-l", "one", "-O", "qcow2", "a.qcow2").out == \
        qemu_img("measure", "-l", "one", "-O", "qcow2", "a.qcow2").out
    imgtk_fails("measure", "-l", "two", "-O", "qcow2", "a.qcow2", match="two")


# ---- The size of the file, to the byte -------------------------------------------------------------------------------

def make_sources(folder):
    noise = random.Random(5).randbytes(9 * MIB + 1536)
    make_raw(folder / "empty.raw", 10 * MIB, [])
    make_raw(folder / "full.raw", len(noise), [(0, noise)])
    make_raw(folder / "partial.raw", 70 * MIB + 512, [(0, noise[:4096]), (3 * MIB + 40 * KIB, noise[:72 * KIB]),
                                                      (70 * MIB, noise[:512])])
    make_raw(folder / "sparse.raw", 1024 ** 4, [(place, noise[:200 * KIB]) for place in
                                               (0, 5 * MIB, 513 * MIB - 4096, 600 * 1024 * MIB, 1024 ** 4 - 200 * KIB)])
    for name, options in (("fine", "cluster_size=512"), ("coarse", "cluster_size=2M"),
                          ("sub", "extended_l2=on,cluster_size=128k")):
        qemu_img("convert", "-O", "qcow2", "-o", options, folder / "partial.raw", folder / f"{name}.qcow2")
    make_image(folder / "top.qcow2", None, backing="fine.qcow2", backing_fmt="qcow2",
               writes=["write -P 7 8M 64k", "write -z 3M 4k", "write -z 20M 3M"])


TARGETS = [
    "raw", "qcow2", "qcow2 -o cluster_size=4k", "qcow2 -o cluster_size=2M", "qcow2 -o compat=0.10",
    "qcow2 -o cluster_size=512,refcount_bits=64", "qcow2 -o cluster_size=8k,refcount_bits=1",
    "qcow2 -o extended_l2=on", "qcow2 -o extended_l2=on,cluster_size=2M",
    "vpc", "vpc -o subformat=fixed", "vdi", "vdi -o static=on", "vhdx", "vhdx -o block_size=1M",
    "vhdx -o subformat=fixed", "vmdk", "vmdk -o subformat=monolithicSparse,toolsversion=" + "9" * 200,
]
PREALLOCATED = ["qcow2 -o preallocation=metadata", "qcow2 -o preallocation=falloc,cluster_size=4k",
                "qcow2 -o preallocation=metadata,cluster_size=512,refcount_bits=64",
                "qcow2 -o preallocation=full,extended_l2=on"]
SOURCES = ["empty.raw", "full.raw", "partial.raw", "fine.qcow2", "coarse.qcow2", "sub.qcow2", "top.qcow2"]
LARGE = [target for target in TARGETS if "fixed" not in target and "static" not in target and
         "cluster_size=512" not in target and "vpc" not in target]


@pytest.fixture
def sources(tmp_path, fill, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, make_sources))
    return tmp_path


def told_size(*words):
    return json.loads(imgtk("measure", "--output=json", *words).out).get("file-size")


@pytest.mark.parametrize("source, target", [(source, target) for target in TARGETS + PREALLOCATED
                                            for source in SOURCES] + [("sparse.raw", target) for target in LARGE])
def test_size_of_the_file(sources, source, target):
    told = told_size("-O", *target.split(), source)
    imgtk("convert", "-O", *target.split(), source, "out")
    assert told == os.path.getsize("out")


@pytest.mark.parametrize("size", ["0", "512", "64k", "700M"])
@pytest.mark.parametrize("target", TARGETS + PREALLOCATED)
def test_size_of_an_empty_file(tmp_path, target, size):
    if size == "0" and target.startswith("vmdk"): # which has no empty disks
        size = "1M"
    name = tmp_path / "out"
    told = told_size("-O", *target.split(), "--size", size)
    imgtk("create", "-f", *target.split(), name, size)
    assert told == name.stat().st_size


@pytest.mark.parametrize("source", ["sparse.raw", "partial.raw"])
def test_qemu_img_asks_for_more_than_the_file_takes(sources, source):
    """A refcount table that leaves its place, and tables for the whole disk."""
    told = json.loads(imgtk("measure", "-O", "qcow2", "--output=json", source).out)
    assert told["file-size"] < told["required"]


def test_a_refcount_table_that_moves(tmp_path):
    name, words = tmp_path / "out", ["qcow2", "-o", "cluster_size=512,refcount_bits=64,preallocation=metadata"]
    for size in (127 * MIB, 128 * MIB, 2600 * KIB, 1900 * KIB, 2 * MIB):
        told = told_size("-O", *words, "--size", str(size))
        imgtk("create", "-f", *words, name, str(size))
        assert told == name.stat().st_size, size


@pytest.mark.parametrize("words", [
    "-c -O qcow2 fine.qcow2", "-O qcow2 -o backing_file=fine.qcow2,backing_fmt=qcow2 top.qcow2",
    "-O qcow2 -o data_file=data top.qcow2", "-O vmdk -o subformat=streamOptimized top.qcow2",
    "-O vmdk -o subformat=monolithicFlat top.qcow2", "-O vmdk -o subformat=twoGbMaxExtentSparse top.qcow2",
    "-O vmdk -o toolsversion=" + "9" * 10000 + " top.qcow2",
])
def test_size_that_is_not_known_is_not_told(sources, words):
    assert told_size(*words.split()) is None
    assert "file size" not in imgtk("measure", "-v", *words.split()).out


def test_size_of_a_new_overlay(sources):
    options = "backing_file=fine.qcow2,backing_fmt=qcow2"
    told = told_size("-O", "qcow2", "-o", options, "--size", "1G")
    imgtk("create", "-f", "qcow2", "-o", options, "out", "1G")
    assert told == os.path.getsize("out")

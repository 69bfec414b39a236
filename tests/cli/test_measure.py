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
@pytest.mark.parametrize("output", [[], ["--output=json"]], ids=["human", "json"])
def test_as_qemu_img(folder, words, output):
    theirs = qemu_img("measure", *output, *words.split())
    assert imgtk("measure", *output, *words.split()).out == theirs.out


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

"""qcow2 images that qemu-img and qemu-io make: every byte and every row of the map must be what qemu-img says."""
import json
import os
import random
import struct

import pytest
from imgtk_test import (KIB, MIB, TIB, assert_same_bytes, compressible, imgtk, imgtk_fails, make_image, make_raw,
                        qemu_img, qemu_io)


def rows(text):
    """The rows of a map; "compressed" is younger than some versions of qemu-img."""
    return [{key: value for key, value in row.items() if key != "compressed"} for row in json.loads(text)]


def flush(name):
    fd = os.open(name, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def assert_same_map(image, *options):
    words = ("map", "--output=json", *options, image)
    # What is a hole of a file may change while the kernel writes it back: the answer is asked for again.
    for _ in range(3):
        for name in image.parent.iterdir():
            flush(name)
        expected = rows(qemu_img(*words, cwd=image.parent).out)
        got = rows(imgtk(*words, cwd=image.parent).out)
        if got == expected:
            return
    assert got == expected


def assert_same_disk(image, *options, size=None):
    ours, theirs = image.with_suffix(".ours"), image.with_suffix(".theirs")
    imgtk("convert", "-f", "qcow2", "-O", "raw", *options, image, ours)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", *options, image, theirs)
    if size is not None:
        with open(theirs, "r+b") as file:
            file.truncate(size)
    assert_same_bytes(ours, theirs)
    ours.unlink()
    theirs.unlink()


def assert_same_info(image):
    expected = json.loads(qemu_img("info", "--output=json", image).out)
    got = json.loads(imgtk("info", "--output=json", image).out)
    for key, value in expected.items():
        if key != "children":
            assert got[key] == value, key


def assert_same(image):
    assert_same_map(image)
    assert_same_disk(image)
    assert_same_info(image)


def random_writes(seed, size, unit, count):
    """qemu-io commands that write data, zeroes of every kind and holes, at aligned and unaligned places."""
    rng = random.Random(seed)
    commands = []
    for _ in range(count):
        align = rng.choice((512, unit, unit, 4096))
        offset = rng.randrange(0, size // align) * align
        length = min(rng.randrange(1, 9) * rng.choice((512, unit, align)), size - offset)
        kind = rng.choice((f"write -P {rng.randrange(1, 255)}", f"write -P {rng.randrange(1, 255)}", "write -z",
                           "write -z -u", "discard", "write -P 0"))
        commands.append(f"{kind} {offset} {length}")
    return commands


CLUSTERS = [512, 1024, 4 * KIB, 64 * KIB, 256 * KIB, 2 * MIB]


@pytest.mark.parametrize("cluster_size", CLUSTERS)
@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "compat=1.1,extended_l2=on"])
def test_random_writes(tmp_path, cluster_size, options):
    if "extended" in options and cluster_size < 16 * KIB:
        cluster_size = 16 * KIB
    size = 64 * cluster_size + 3 * 512 if cluster_size > 4 * KIB else 3 * MIB + 512
    for seed in range(2):
        writes = random_writes(seed * 1000 + cluster_size, size, cluster_size, 40)
        if "0.10" in options:
            writes = [command for command in writes if "-z" not in command]
        image = make_image(tmp_path / f"{seed}.qcow2", size, options=f"{options},cluster_size={cluster_size}",
                           writes=writes)
        assert_same(image)


@pytest.mark.deflate
@pytest.mark.threads
@pytest.mark.parametrize("cluster_size", CLUSTERS)
@pytest.mark.parametrize("kind", ["zlib", "zstd", "extended"])
def test_compressed(tmp_path, cluster_size, kind):
    if kind == "extended":
        cluster_size = max(cluster_size, 16 * KIB)
    options = {"zlib": "", "zstd": ",compression_type=zstd", "extended": ",extended_l2=on"}[kind]
    rng = random.Random(cluster_size)
    pieces = [(0, compressible(5 * cluster_size // 2)), (9 * cluster_size, rng.randbytes(3 * cluster_size)),
              (20 * cluster_size, compressible(cluster_size + 7, 2)), (40 * cluster_size, b"\x55" * (4 * cluster_size))]
    raw = make_raw(tmp_path / "disk.raw", 50 * cluster_size + 1536, pieces)
    for coroutines in ("1", "8"):
        image = tmp_path / f"{coroutines}.qcow2"
        words = ["-W"] if coroutines == "8" else []
        qemu_img("convert", "-c", *words, "-m", coroutines, "-O", "qcow2", "-o", f"cluster_size={cluster_size}{options}",
                 raw, image)
        assert_same(image)
    # Plain data over compressed, so that kinds alternate.
    qemu_io(image, *(f"write -P {n} {n * 2 * cluster_size} {cluster_size}" for n in range(1, 12)))
    assert_same(image)
    part = tmp_path / "part.raw"
    imgtk("convert", "-O", "raw", image, part)
    qemu_img("convert", "-O", "raw", image, raw)
    assert_same_bytes(part, raw)


@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=64k", "cluster_size=2M", "extended_l2=on",
                                     "compat=0.10"])
def test_preallocation(tmp_path, mode, options):
    if mode in ("falloc", "full") and "2M" in options:
        options = "cluster_size=512k"
    image = make_image(tmp_path / "a.qcow2", 20 * MIB + 512, options=f"preallocation={mode},{options}")
    assert_same(image)
    qemu_io(image, "write -P 1 1M 1M", "write -P 2 7M 4k", "write -P 3 20M 512")
    assert_same(image)
    if "0.10" not in options:
        qemu_io(image, "write -z 1M 128k", "write -z -u 7M 1M", "discard 15M 1M")
        assert_same(image)


@pytest.mark.deflate
def test_preallocated_and_compressed_in_one(tmp_path):
    """An image that grew: its first part is compressed, the second preallocated."""
    raw = make_raw(tmp_path / "disk.raw", 2 * MIB, [(0, compressible(2 * MIB))])
    image = tmp_path / "a.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", raw, image)
    qemu_img("resize", "--preallocation=metadata", image, "9M")
    assert_same(image)


@pytest.mark.parametrize("raw", ["off", "on"])
def test_data_file(tmp_path, raw):
    image = make_image(tmp_path / "a.qcow2", 5 * MIB + 512, options=f"data_file={tmp_path}/a.data,data_file_raw={raw}")
    assert_same_map(image)
    assert_same_info(image)
    qemu_io(image, *random_writes(5, 5 * MIB, 64 * KIB, 30))
    assert_same(image)


def test_data_file_not_followed(tmp_path):
    """info needs no data file, and convert says which one is missing."""
    image = make_image(tmp_path / "a.qcow2", MIB, options=f"data_file={tmp_path}/a.data")
    qemu_io(image, "write 0 64k")
    (tmp_path / "a.data").unlink()
    assert json.loads(imgtk("info", "--output=json", image).out)["format-specific"]["data"]["data-file"].endswith("a.data")
    imgtk_fails("convert", "-O", "raw", image, tmp_path / "out", match="a.data")


@pytest.mark.parametrize("base_size", [MIB, MIB + 512, 3 * MIB, 3 * MIB - 1536, 8 * MIB])
@pytest.mark.parametrize("base_format", ["raw", "qcow2"])
def test_backing(tmp_path, base_size, base_format):
    base = make_image(tmp_path / "base", base_size, fmt=base_format)
    qemu_io(base, *[c for c in random_writes(3, base_size // 512 * 512, 64 * KIB, 20)], fmt=base_format)
    middle = make_image(tmp_path / "middle.qcow2", 2 * MIB, backing=base, backing_fmt=base_format,
                        options="cluster_size=4k")
    qemu_io(middle, *random_writes(4, 2 * MIB, 4 * KIB, 20))
    top = make_image(tmp_path / "top.qcow2", 4 * MIB, backing=middle, backing_fmt="qcow2",
                     options="extended_l2=on,cluster_size=32k")
    qemu_io(top, *random_writes(5, 4 * MIB, 32 * KIB, 20))
    for image in (middle, top):
        assert_same(image)


@pytest.mark.deflate
def test_backing_compressed(tmp_path):
    raw = make_raw(tmp_path / "disk.raw", 3 * MIB, [(0, compressible(2 * MIB))])
    base = tmp_path / "base.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", raw, base)
    top = make_image(tmp_path / "top.qcow2", 4 * MIB, backing=base, backing_fmt="qcow2", options="cluster_size=4k")
    qemu_io(top, "write -P 7 100k 5k", "write -P 8 1M 64k", "write -z 1500k 100k")
    assert_same(top)


def test_snapshots(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 4 * MIB, options="cluster_size=4k")
    for number in range(1, 4):
        qemu_io(image, *random_writes(number, 4 * MIB, 4 * KIB, 15))
        # The second is called as the third's id is: an id wins.
        qemu_img("snapshot", "-c", {1: "first", 2: "3", 3: "third"}[number], image)
    qemu_io(image, *random_writes(9, 4 * MIB, 4 * KIB, 15))
    assert_same(image)
    for wanted in ("first", "1", "2", "3", "third"):
        assert_same_disk(image, "-l", wanted)
    imgtk_fails("convert", "-l", "fourth", "-O", "raw", image, tmp_path / "out", match="fourth")


def test_snapshot_of_another_size(tmp_path):
    """The disk as it was: qemu-img's convert gives it today's size, its `snapshot -a` that of the snapshot."""
    image = make_image(tmp_path / "a.qcow2", 4 * MIB, writes=["write -P 1 0 1M", "write -P 2 3M 1M"])
    qemu_img("snapshot", "-c", "small", image)
    qemu_img("resize", image, "6M")
    qemu_io(image, "write -P 3 5M 1M")
    assert_same(image)
    assert_same_disk(image, "-l", "small", size=4 * MIB)


def test_bitmaps_are_told(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 4 * MIB)
    qemu_img("bitmap", "--add", "-g", "128k", image, "one")
    qemu_img("bitmap", "--add", "--disable", image, "two")
    assert_same(image)


@pytest.mark.parametrize("bits", ["1", "2", "4", "8", "32", "64"])
def test_refcount_bits(tmp_path, bits):
    """They decide whether a map asks the file for holes."""
    image = make_image(tmp_path / "a.qcow2", 4 * MIB, options=f"refcount_bits={bits},preallocation=metadata")
    qemu_io(image, "write -P 1 1M 64k")
    assert_same(image)


def test_lazy_refcounts_and_dirty(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 4 * MIB, options="lazy_refcounts=on", writes=["write -P 1 1M 64k"])
    data = bytearray(image.read_bytes())
    for bits in (1, 2, 3):
        data[79] = bits
        image.write_bytes(data)
        assert_same(image)


def test_unknown_feature_is_named(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 4 * MIB)
    data = bytearray(image.read_bytes())
    data[78] = 0x02
    at = data.index(b"dirty bit") - 1
    data[at:at + 10] = struct.pack("B", 9) + b"spiral\0\0\0"
    image.write_bytes(data)
    imgtk_fails("info", image, match=r"unknown incompatible feature 'spiral' \(bit 9\)$")


def test_map_of_a_part(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 4 * MIB, options="cluster_size=4k", writes=random_writes(1, 4 * MIB, 4096, 30))
    for start, length in ((0, 512), (5000 * 512, 100 * 512), (4 * MIB - 512, 512), (MIB, 2 * MIB)):
        assert_same_map(image, "--start-offset", str(start), "--max-length", str(length))


@pytest.mark.parametrize("size", [0, 512, 63 * TIB])
def test_empty(tmp_path, size):
    options = "cluster_size=2M" if size > TIB else ""
    image = make_image(tmp_path / "a.qcow2", size, options=options)
    assert_same_map(image)
    assert_same_info(image)


def test_odd_sizes_of_other_makers(tmp_path):
    """A size that is no multiple of a sector: qemu-img rounds it down, imgtk keeps it to the byte."""
    image = make_image(tmp_path / "a.qcow2", MIB, writes=["write -P 1 0 1M"])
    data = bytearray(image.read_bytes())
    struct.pack_into(">Q", data, 24, MIB - 100)
    image.write_bytes(data)
    out = tmp_path / "out"
    imgtk("convert", "-O", "raw", image, out)
    assert out.read_bytes() == b"\1" * (MIB - 100)

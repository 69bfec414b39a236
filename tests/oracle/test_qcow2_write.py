"""qcow2 as imgtk writes it, judged by qemu-img: no fault, no difference, no larger file."""
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from imgtk_test import (GIB, IMGTK, KIB, MIB, SANITIZE, TIB, assert_same_bytes, build_option, compressible,
                        environment, imgtk, imgtk_fails, make_raw, qemu_img, tool)


ZLIB_LEVELS = 9 if build_option("IMGTK_LIBDEFLATE") == "OFF" else 12


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def mixed(path):
    """Data of every kind at places that are aligned to nothing, in a disk of an odd size."""
    pieces = [(0, noise(70000)), (MIB - 300, compressible(200 * KIB)), (3 * MIB, bytes(300 * KIB)),
              (4 * MIB + 4096, b"x" * 5000), (7 * MIB, compressible(MIB, 2)), (8 * MIB + 1, noise(90 * KIB, 2)),
              (9 * MIB, b"\1" * MIB), (12 * MIB + 512, b"end")]
    return make_raw(path, 12 * MIB + 1025, pieces)


SOURCES = {
    "mixed": mixed,
    "nothing": lambda path: make_raw(path, 0),
    "one-byte": lambda path: make_raw(path, 1, [(0, b"1")]),
    "513-bytes": lambda path: make_raw(path, 513, [(0, noise(513))]),
    "hole": lambda path: make_raw(path, 50 * MIB),
    "written-zeroes": lambda path: make_raw(path, 5 * MIB, [(0, bytes(5 * MIB))]),
    "noise": lambda path: make_raw(path, 3 * MIB + 512, [(0, noise(3 * MIB + 512))]),
    "words": lambda path: make_raw(path, 6 * MIB, [(0, compressible(6 * MIB))]),
    "sparse": lambda path: make_raw(path, 5 * GIB + 4096, [(n * 600 * MIB + n * 7777, compressible(99999, n))
                                                          for n in range(8)]),
}

PLAIN = [
    "", "compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1",
    "refcount_bits=2,cluster_size=512", "refcount_bits=4", "refcount_bits=8,cluster_size=1k",
    "refcount_bits=32", "refcount_bits=64,cluster_size=512", "lazy_refcounts=on", "extended_l2=on",
    "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M,refcount_bits=64",
]
PREALLOCATED = [
    "preallocation=metadata", "preallocation=falloc", "preallocation=full", "preallocation=metadata,compat=0.10",
    "preallocation=metadata,cluster_size=512,refcount_bits=64", "preallocation=full,extended_l2=on",
    "preallocation=falloc,cluster_size=2M",
]
COMPRESSED = [
    "", "compat=0.10", "cluster_size=512", "cluster_size=4k,refcount_bits=1", "cluster_size=4k,refcount_bits=2",
    "cluster_size=2M", "refcount_bits=1", "refcount_bits=64,cluster_size=512", "compression_type=zstd",
    "compression_type=zstd,cluster_size=2M,extended_l2=on", "compression_type=zstd,cluster_size=512", "extended_l2=on",
    "compression_level=9", "compression_type=zstd,compression_level=12",
]


def judge(source, image, **more):
    qemu_img("check", "-q", image, **more)
    qemu_img("compare", "-q", "-f", "raw", "-F", "qcow2", source, image, **more)


def qemu_options(options):
    """The same for qemu-img, which knows no levels."""
    return ",".join(word for word in options.split(",") if not word.startswith("compression_level"))


def assert_no_larger(source, image, flags, options, tmp_path):
    theirs = tmp_path / "qemu.qcow2"
    options = qemu_options(options)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *flags, *["-o", options][:2 * bool(options)], source, theirs)
    assert image.stat().st_size <= theirs.stat().st_size * 1.01


def convert(source, image, *flags, options="", **more):
    return imgtk("convert", "-f", "raw", "-O", "qcow2", *flags, *["-o", options][:2 * bool(options)], source, image,
                 **more)


def assert_round_trip(source, image, tmp_path):
    """imgtk reads what imgtk wrote; whole sectors come out."""
    back = tmp_path / "back.raw"
    imgtk("convert", "-O", "raw", image, back)
    size = os.path.getsize(source)
    assert back.stat().st_size == (size + 511) // 512 * 512
    os.truncate(back, size)
    assert_same_bytes(source, back)


@pytest.mark.parametrize("options", PLAIN + PREALLOCATED)
def test_plain_options(tmp_path, options):
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    convert(source, image, options=options)
    judge(source, image)
    assert_no_larger(source, image, [], options, tmp_path)
    assert_round_trip(source, image, tmp_path)


@pytest.mark.deflate
@pytest.mark.parametrize("options", COMPRESSED)
def test_compressed_options(tmp_path, options):
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    convert(source, image, "-c", options=options)
    judge(source, image)
    assert_no_larger(source, image, ["-c"], options, tmp_path)
    assert_round_trip(source, image, tmp_path)


@pytest.mark.parametrize("cluster_size", ["1k", "2k", "4k", "8k", "16k", "32k", "256k"])
def test_programs_are_no_larger(tmp_path, cluster_size):
    """Small clusters have levels of their own."""
    program = Path(sys.executable).resolve().read_bytes()[:6 * MIB]
    source, image = make_raw(tmp_path / "source.raw", 6 * MIB, [(0, program)]), tmp_path / "image.qcow2"
    convert(source, image, "-c", options=f"cluster_size={cluster_size}")
    judge(source, image)
    assert_no_larger(source, image, ["-c"], f"cluster_size={cluster_size}", tmp_path)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("flags, options", [
    ([], ""), ([], "extended_l2=on"), ([], "cluster_size=4k,refcount_bits=1"), (["-c"], ""),
    (["-c"], "compression_type=zstd,cluster_size=32k"), (["-c"], "extended_l2=on,refcount_bits=2")])
def test_sources(tmp_path, source, flags, options):
    raw, image = SOURCES[source](tmp_path / "source.raw"), tmp_path / "image.qcow2"
    convert(raw, image, *flags, options=options)
    judge(raw, image)
    assert_no_larger(raw, image, flags, options, tmp_path)


@pytest.mark.threads
@pytest.mark.parametrize("flags, options", [
    ([], ""), ([], "cluster_size=512"), ([], "extended_l2=on"), ([], "data_file=data.raw"), (["-c"], ""),
    (["-c"], "cluster_size=4k,compression_type=zstd"), (["-S", "0"], "")])
def test_the_file_does_not_depend_on_workers(tmp_path, flags, options):
    source = mixed(tmp_path / "source.raw")
    one, many = tmp_path / "one.qcow2", tmp_path / "many.qcow2"
    convert(source, one, "-m", "1", *flags, options=options, cwd=tmp_path)
    convert(source, many, "-m", "8", *flags, options=options.replace("data.raw", "more.raw"), cwd=tmp_path)
    if options.startswith("data_file"):
        assert_same_bytes(tmp_path / "data.raw", tmp_path / "more.raw")
    else:
        assert_same_bytes(one, many)


@pytest.mark.parametrize("options", ["", "cluster_size=2M", "extended_l2=on", "extended_l2=on,cluster_size=2M"])
def test_a_last_cluster_that_is_mostly_zeroes(tmp_path, options):
    """Its zeroes need not be written, but the file may not end before them."""
    source = make_raw(tmp_path / "source.raw", 5 * MIB, [(MIB + 640 * KIB, noise(5000))])
    image = tmp_path / "image.qcow2"
    convert(source, image, options=options)
    judge(source, image)
    assert_no_larger(source, image, [], options, tmp_path)
    assert_round_trip(source, image, tmp_path)
    imgtk("check", image)


@pytest.mark.parametrize("flags, options", [
    ([], ""), ([], "cluster_size=512,refcount_bits=64"), ([], "extended_l2=on"), ([], "preallocation=metadata"),
    (["-c"], ""), (["-c"], "cluster_size=4k,refcount_bits=2")])
def test_all_is_written_with_sparse_size_zero(tmp_path, flags, options):
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    convert(source, image, "-S", "0", *flags, options=options)
    judge(source, image)
    rows = json.loads(qemu_img("map", "--output=json", image).out)
    assert all(row["present"] for row in rows), rows
    if not flags:
        assert all("offset" in row for row in rows), rows


# ---- Streams of compressed clusters ----

def compressed_streams(path):
    """Each compressed stream of an image without extended L2, from its tables."""
    data = path.read_bytes()
    bits, size = struct.unpack_from(">IQ", data, 20)
    entries, l1 = struct.unpack_from(">IQ", data, 36)
    shift = 62 - (bits - 8)
    for i in range(entries):
        l2, = struct.unpack_from(">Q", data, l1 + 8 * i)
        l2 &= 0x00fffffffffffe00
        for entry in struct.unpack_from(f">{(1 << bits) // 8}Q", data, l2) if l2 else ():
            if entry >> 62 & 1:
                offset = entry & ((1 << shift) - 1)
                sectors = (entry >> shift & ((1 << (bits - 8)) - 1)) + 1
                yield 1 << bits, data[offset:offset + sectors * 512 - offset % 512]


@pytest.mark.deflate
@pytest.mark.parametrize("level", [1, 6, ZLIB_LEVELS])
@pytest.mark.parametrize("cluster_size", ["64k", "2M"])
def test_deflate_inflates_in_a_window_of_4_kib(tmp_path, level, cluster_size):
    # Matches reach 30000 bytes back: more than the window, which holds as long as inflate() sees all its output.
    far = noise(30000, 5)
    source = make_raw(tmp_path / "source.raw", 4 * MIB, [(0, (far * 140)[:4 * MIB])])
    image = tmp_path / "image.qcow2"
    convert(source, image, "-c", options=f"compression_level={level},cluster_size={cluster_size}")
    expected, at, count = source.read_bytes(), 0, 0
    for size, stream in compressed_streams(image):
        inflate = zlib.decompress(stream_end(stream), wbits=-12, bufsize=size)
        assert inflate == expected[at:at + size]
        at, count = at + size, count + 1
    assert at == 4 * MIB and count > 1


def stream_end(stream):
    """A stream without the bytes behind it, which zlib.decompress() does not take."""
    whole = zlib.decompressobj(wbits=-15)
    whole.decompress(stream)
    assert whole.eof
    return stream[:len(stream) - len(whole.unused_data)]


@pytest.mark.deflate
def test_a_level_is_used(tmp_path):
    source = make_raw(tmp_path / "source.raw", 8 * MIB, [(0, compressible(8 * MIB))])
    sizes = []
    for level in 1, ZLIB_LEVELS:
        image = tmp_path / f"{level}.qcow2"
        convert(source, image, "-c", options=f"compression_level={level}")
        sizes.append(image.stat().st_size)
    assert sizes[1] < sizes[0]


# ---- Backing files ----

def overlay_pair(tmp_path):
    """A base, and a disk that differs from it in every way: data over data, zeroes over data, a longer end."""
    base = make_raw(tmp_path / "base.raw", 9 * MIB, [(0, compressible(4 * MIB)), (6 * MIB, noise(3 * MIB))])
    data = bytearray(base.read_bytes()) + bytes(3 * MIB + 512)
    data[MIB:2 * MIB] = noise(MIB, 3)
    data[2 * MIB + 5000:3 * MIB] = bytes(MIB - 5000)
    data[7 * MIB:8 * MIB + 70000] = bytes(MIB + 70000)
    data[10 * MIB:10 * MIB + 50] = noise(50)
    (tmp_path / "source.raw").write_bytes(data)
    return base, tmp_path / "source.raw"


@pytest.mark.parametrize("flags, options", [
    (flags, options) for flags in ([], ["-c"]) for options in (
        "", "compat=0.10", "cluster_size=4k", "cluster_size=2M", "extended_l2=on", "extended_l2=on,cluster_size=16k",
        "extended_l2=on,preallocation=metadata", "extended_l2=on,preallocation=full")
    if not (flags and "preallocation" in options)])
def test_backing_file(tmp_path, flags, options):
    base, source = overlay_pair(tmp_path)
    images = []
    for workers in 1, 8:
        image = tmp_path / f"{workers}.qcow2"
        imgtk("convert", "-f", "raw", "-O", "qcow2", "-m", workers, *flags, *["-o", options][:2 * bool(options)],
              "-B", base, "-F", "raw", source, image)
        judge(source, image)
        images.append(image)
    assert_same_bytes(*images)
    info = json.loads(qemu_img("info", "--output=json", images[0]).out)
    assert info["backing-filename"] == str(base) and info["backing-filename-format"] == "raw"


def test_backing_file_beside_a_data_file(tmp_path):
    base, source = overlay_pair(tmp_path)
    image = tmp_path / "image.qcow2"
    imgtk("convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=data.raw", "-B", base, "-F", "raw", source, image,
          cwd=tmp_path)
    judge(source, image, cwd=tmp_path)


def test_only_what_differs_is_written(tmp_path):
    base = make_raw(tmp_path / "base.raw", 64 * MIB, [(0, noise(8 * MIB))])
    source = tmp_path / "source.raw"
    source.write_bytes(base.read_bytes())
    with open(source, "r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed")
    image = tmp_path / "image.qcow2"
    imgtk("convert", "-f", "raw", "-O", "qcow2", "-B", base, "-F", "raw", source, image)
    judge(source, image)
    assert image.stat().st_size == 6 * 64 * KIB


# ---- Data files ----

@pytest.mark.parametrize("raw", ["off", "on"])
@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=4k", "preallocation=full"])
def test_data_file(tmp_path, raw, options):
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    words = ",".join(filter(None, ["data_file=data.raw", f"data_file_raw={raw}", options]))
    convert(source, image, options=words, cwd=tmp_path)
    judge(source, image, cwd=tmp_path)
    data = tmp_path / "data.raw"
    assert data.stat().st_size == (source.stat().st_size + 511) // 512 * 512
    if raw == "on":
        os.truncate(data, source.stat().st_size)
        assert_same_bytes(source, data)
    else:
        assert_round_trip(source, image, tmp_path)


# ---- Pipes ----

def to_pipe(source, path, *words):
    with open(path, "wb") as out:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=out)
        done = subprocess.run([IMGTK, "convert", "-f", "raw", "-O", "qcow2", *words, source, "-"], stdout=cat.stdin,
                              stderr=subprocess.PIPE, env=environment(), timeout=120)
        cat.stdin.close()
        cat.wait()
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("words", [[], ["-o", "cluster_size=512,refcount_bits=64"], ["-o", "extended_l2=on"],
                                   ["-o", "compat=0.10,cluster_size=2M"], ["-c"], ["-c", "-m", "1"]])
def test_stream(tmp_path, source, words):
    if source == "sparse" and "cluster_size=2M" in str(words):
        words = ["-o", "cluster_size=1M"]
    raw = SOURCES[source](tmp_path / "source.raw")
    judge(raw, to_pipe(raw, tmp_path / "piped.qcow2", *words))


def test_stream_of_everything(tmp_path):
    source = mixed(tmp_path / "source.raw")
    judge(source, to_pipe(source, tmp_path / "piped.qcow2", "-S", "0"))


def test_tables_come_first_in_a_stream(tmp_path):
    source = mixed(tmp_path / "source.raw")
    image = to_pipe(source, tmp_path / "piped.qcow2")
    rows = json.loads(qemu_img("map", "--output=json", image).out)
    offsets = [row["offset"] for row in rows if "offset" in row]
    assert offsets == sorted(offsets)
    l1, = struct.unpack_from(">Q", image.read_bytes(), 40)
    assert l1 < offsets[0]


@pytest.mark.deflate
def test_a_compressed_stream_is_the_file(tmp_path):
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    convert(source, image, "-c")
    assert_same_bytes(image, to_pipe(source, tmp_path / "piped.qcow2", "-c"))


def test_a_spool_is_announced_and_leaves_nothing(tmp_path):
    source, spool = mixed(tmp_path / "source.raw"), tmp_path / "spool"
    spool.mkdir()
    done = subprocess.run([IMGTK, "convert", "-v", "-c", "-f", "raw", "-O", "qcow2", source, "-"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(TMPDIR=spool), timeout=120)
    assert done.returncode == 0 and b"spooled" in done.stderr
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("options, why", [("preallocation=metadata", "reserved in a pipe"),
                                          ("data_file=data.raw", "beside a pipe")])
def test_what_cannot_stream_is_refused(tmp_path, options, why):
    source = mixed(tmp_path / "source.raw")
    done = subprocess.run([IMGTK, "convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "-"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), timeout=120, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == b"" and why in done.stderr.decode()
    assert not (tmp_path / "data.raw").exists()


# ---- Empty images ----

@pytest.mark.parametrize("options", PLAIN + PREALLOCATED +
                         ["data_file=data.raw", "data_file=data.raw,data_file_raw=on"])
@pytest.mark.parametrize("size", [0, 1000, 100 * MIB])
def test_create(tmp_path, options, size):
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    words = ["-o", options][:2 * bool(options)]
    imgtk("create", "-q", "-f", "qcow2", *words, ours, size, cwd=tmp_path)
    qemu_img("check", "-q", ours, cwd=tmp_path)
    mine = json.loads(qemu_img("info", "--output=json", ours, cwd=tmp_path).out)
    (tmp_path / "data.raw").unlink(missing_ok=True)
    qemu_img("create", "-q", "-f", "qcow2", *words, theirs, size, cwd=tmp_path)
    expected = json.loads(qemu_img("info", "--output=json", theirs, cwd=tmp_path).out)
    for key in "virtual-size", "cluster-size", "format-specific", "dirty-flag":
        assert mine[key] == expected[key]
    assert ours.stat().st_size <= theirs.stat().st_size * 1.01


@pytest.mark.parametrize("size, options", [("16T", ""), ("128G", "cluster_size=512"), ("1T", "preallocation=metadata"),
                                           ("2E", "cluster_size=2M,compat=1.1")])
def test_create_large(tmp_path, size, options):
    image = tmp_path / "image.qcow2"
    memory = None if SANITIZE else 256 * MIB
    imgtk("create", "-q", "-f", "qcow2", "-o", options or "compat=1.1", image, size, memory=memory)
    assert json.loads(qemu_img("info", "--output=json", image).out)["virtual-size"] > 0
    if size != "2E":
        qemu_img("check", "-q", image)


def test_sparse_16_tib(tmp_path):
    source = make_raw(tmp_path / "source.raw", 15 * TIB, [(n * TIB + n * 12345, noise(100000, n)) for n in range(15)])
    image = tmp_path / "image.qcow2"
    convert(source, image, memory=None if SANITIZE else 512 * MIB)
    qemu_img("check", "-q", image)
    assert_no_larger(source, image, [], "", tmp_path)


# ---- Refusals ----

@pytest.mark.deflate
@pytest.mark.parametrize("flags, options, why", [
    ([], "cluster_size=3000", "Cluster size must be a power of two between 512 and 2048k"),
    ([], "cluster_size=4M", "Cluster size must be"),
    ([], "refcount_bits=3", "Refcount width must be a power of two"),
    ([], "refcount_bits=128", "Refcount width must be a power of two"),
    ([], "refcount_bits=8,compat=0.10", "refcount widths than 16 bits require compatibility level 1.1"),
    ([], "lazy_refcounts=on,compat=v2", "Lazy refcounts only supported with compatibility level 1.1"),
    ([], "extended_l2=on,compat=v2", "Extended L2 entries are only supported with compatibility level 1.1"),
    ([], "extended_l2=on,cluster_size=8k", "cluster sizes of at least 16384"),
    ([], "compression_type=zstd,compat=v2", "compression type is only supported with compatibility level 1.1"),
    ([], "data_file=data.raw,compat=v2", "External data files are only supported with compatibility level 1.1"),
    ([], "data_file_raw=on", "requires data_file"),
    (["-c"], "data_file=data.raw", "Compression not supported with an external data file"),
    (["-c"], "preallocation=metadata", "Compression and preallocation not supported at the same time"),
    (["-c"], f"compression_level={ZLIB_LEVELS + 1}", f"zlib has levels from 1 to {ZLIB_LEVELS}"),
    (["-c"], "compression_type=zstd,compression_level=20", "zstd has levels from 1 to 19"),
    (["-B", "base.raw", "-F", "raw"], "preallocation=metadata", "only be used at the same time if extended_l2 is on"),
    (["-B", "base.raw", "-F", "raw"], "data_file=data.raw,data_file_raw=on", "cannot be used at the same time"),
])
def test_refusals(tmp_path, flags, options, why):
    source = mixed(tmp_path / "source.raw")
    make_raw(tmp_path / "base.raw", MIB)
    imgtk_fails("convert", "-f", "raw", "-O", "qcow2", *flags, "-o", options, source, tmp_path / "image.qcow2",
                match=why, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.raw", "source.raw"]


def test_a_size_beyond_the_tables_is_refused(tmp_path):
    imgtk_fails("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", tmp_path / "image.qcow2", "129G",
                match="try using a larger cluster size.*clusters of 512 bytes reach 137438953472")
    assert list(tmp_path.iterdir()) == []


def test_names_that_do_not_fit_are_refused(tmp_path):
    imgtk_fails("create", "-q", "-u", "-f", "qcow2", "-o", "cluster_size=512", "-b", "b" * 600, "-F", "raw",
                tmp_path / "image.qcow2", "1M", match="must fit into one cluster of 512 bytes")


# ---- Existing targets ----

@pytest.mark.parametrize("words", [[], ["-c"], ["-o", "extended_l2=on"], ["-o", "preallocation=metadata"],
                                   ["-o", "preallocation=full"], ["-o", "cluster_size=512"]])
def test_over_an_existing_file(tmp_path, words):
    """What was in the file shows nowhere."""
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    image.write_bytes(b"\xff" * (40 * MIB))
    imgtk("convert", "-n", "-f", "raw", "-O", "qcow2", *words, source, image)
    judge(source, image)


@pytest.fixture
def loop_device(tmp_path):
    """64 MiB of 0xff behind a loop device."""
    file = tmp_path / "device"
    file.write_bytes(b"\xff" * (64 * MIB))
    made = subprocess.run([tool("losetup"), "--find", "--show", file], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run([tool("losetup"), "--detach", made.stdout.strip()], check=True)


@pytest.mark.parametrize("words", [[], ["-c"], ["-o", "preallocation=full"]])
def test_onto_a_device(tmp_path, loop_device, words):
    source = mixed(tmp_path / "source.raw")
    imgtk("convert", "-n", "-f", "raw", "-O", "qcow2", *words, source, loop_device)
    judge(source, loop_device)


def test_a_device_that_is_too_small_for_preallocation_is_left_alone(tmp_path, loop_device):
    source = make_raw(tmp_path / "source.raw", 65 * MIB)
    imgtk_fails("convert", "-n", "-f", "raw", "-O", "qcow2", "-o", "preallocation=metadata", source, loop_device,
                match="has 67108864 bytes, the image needs")
    with open(loop_device, "rb") as device:
        assert device.read(MIB) == b"\xff" * MIB


def test_what_an_interrupted_write_leaves_is_no_image(tmp_path):
    """The header comes last: a full file system stops the writer before."""
    source, image = mixed(tmp_path / "source.raw"), tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, -(-source.stat().st_size // 512) * 512)
    limited = ["sh", "-c", 'ulimit -f 4000; exec "$@"', "sh", IMGTK]
    done = subprocess.run([*limited, "convert", "-n", "-f", "raw", "-O", "qcow2", source, image], env=environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 1, done
    assert image.read_bytes()[:512] == bytes(512)

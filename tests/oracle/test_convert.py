"""Every kind of source to every kind of target: qemu-img must find the same disk in it, and no fault."""
import json
import os
import random
from functools import lru_cache

import pytest
from imgtk_test import (KIB, MIB, TIB, allocated, assert_same_bytes, compressible, digest, execute,
                        imgtk, imgtk_fails, make_image, make_raw, peak_memory, qemu_img, qemu_io, tool)

# ---- Sources -------------------------------------------------------------------


def scattered(size, seed=1):
    """Data of several kinds with holes of 4 KiB and more in them, and zeroes that are allocated."""
    rng = random.Random(seed)
    pieces, offset = [], 0
    while offset < size:
        length = min(rng.choice((512, 4 * KIB, 20 * KIB, 64 * KIB, 300 * KIB)), size - offset)
        kind = rng.randrange(4)
        if kind:
            pieces.append((offset, bytes(length) if kind == 1 else rng.randbytes(length) if kind == 2 else
                           compressible(length, offset)))
        offset += length + rng.choice((0, 4 * KIB, 64 * KIB))
    return pieces


def raw_source(size, pieces):
    def make(folder):
        return make_raw(folder / "source.raw", size, pieces(size)), "raw"
    return make


def qcow2_source(options, *flags):
    def make(folder):
        raw = make_raw(folder / "content.raw", 3 * MIB + 512, scattered(3 * MIB + 512, 3))
        qemu_img("convert", *flags, "-f", "raw", "-O", "qcow2", "-o", options, raw, folder / "source.qcow2")
        return folder / "source.qcow2", "qcow2"
    return make


def allocated_zeroes(folder):
    return make_image(folder / "source.qcow2", 3 * MIB, writes=["write -P 0 0 2M", "write -z 2M 512k"]), "qcow2"


SOURCES = {
    "hole": raw_source(3 * MIB, lambda size: []),
    "zeroes": raw_source(2 * MIB + 512, lambda size: [(0, bytes(size))]),
    "sparse": raw_source(5 * MIB + 1536, scattered),
    "random": raw_source(MIB + 512, lambda size: [(0, random.Random(9).randbytes(size))]),
    "small-holes": raw_source(MIB, lambda size: [(at, b"\x55" * 4096) for at in range(0, size, 8192)]),
    "allocated-zeroes": allocated_zeroes,
    "plain": qcow2_source("cluster_size=64k"),
    "compressed": qcow2_source("compression_type=zlib", "-c"),
    "subclusters": qcow2_source("extended_l2=on,cluster_size=64k"),
    "preallocated": qcow2_source("preallocation=metadata"),
}

TARGETS = [
    ("raw", ""), ("raw", "preallocation=falloc"), ("raw", "preallocation=full"),
    ("qcow2", ""), ("qcow2", "compat=0.10"), ("qcow2", "cluster_size=512"), ("qcow2", "cluster_size=2M"),
    ("qcow2", "refcount_bits=1"), ("qcow2", "refcount_bits=64"), ("qcow2", "extended_l2=on"),
    ("qcow2", "lazy_refcounts=on"), ("qcow2", "preallocation=metadata"), ("qcow2", "preallocation=falloc"),
    ("qcow2", "preallocation=full"), ("qcow2", "data_file={}/data.raw,data_file_raw=on"),
    ("vmdk", ""), ("vmdk", "subformat=monolithicFlat"), ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vdi", ""), ("vdi", "static=on"), ("vpc", "force_size=on"), ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", ""), ("vhdx", "subformat=fixed"),
]
# Of these one per way of writing: in place, in units with tables, with parts of units, in a stream of blocks.
PLAIN_TARGETS = [("raw", ""), ("qcow2", ""), ("qcow2", "extended_l2=on"), ("vmdk", ""), ("vdi", ""),
                 ("vpc", "force_size=on"), ("vhdx", "")]
COMPRESSED_TARGETS = [("qcow2", ""), ("qcow2", "compression_type=zstd"), ("qcow2", "cluster_size=4k"),
                      ("qcow2", "compression_level=9"), ("vmdk", "subformat=streamOptimized")]
CHECKED = ("qcow2", "vdi", "vhdx", "vmdk")  # by qemu-img


@lru_cache
def installed():
    return {module["name"] for module in json.loads(imgtk("formats", "--output=json").out)}


def opts(options):
    return ["-o", options] if options else []


def convert_and_compare(source, source_format, folder, fmt, options, *flags):
    if fmt not in installed():
        pytest.skip(f"the format {fmt} is not built")
    target = folder / f"target.{fmt}"
    for name in (target, folder / "data.raw"):
        name.unlink(missing_ok=True)
    imgtk("convert", *flags, "-f", source_format, "-O", fmt, *opts(options.format(folder)), source, target)
    assert "identical" in qemu_img("compare", "-f", source_format, "-F", fmt, source, target).out
    if fmt in CHECKED and "Flat" not in options and "twoGb" not in options:
        qemu_img("check", "-f", fmt, target)
    return target


def pairs():
    """
    Every kind of source to one target of each format, and every target from a source of everything and from one of
    nothing: between a driver that reads and one that writes there are only extents.
    """
    for fmt, options in TARGETS:
        for kind in SOURCES if (fmt, options) in PLAIN_TARGETS else ("sparse", "hole"):
            yield pytest.param(kind, fmt, options, id=f"{fmt}-{options}-{kind}")


@pytest.mark.parametrize("kind, fmt, options", pairs())
def test_matrix(tmp_path, kind, fmt, options):
    source, source_format = SOURCES[kind](tmp_path)
    target = convert_and_compare(source, source_format, tmp_path, fmt, options)
    if fmt == "raw":
        qemu_img("convert", "-f", source_format, "-O", "raw", source, tmp_path / "theirs")
        assert_same_bytes(target, tmp_path / "theirs")


@pytest.mark.deflate
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("fmt, options", COMPRESSED_TARGETS)
def test_matrix_compressed(tmp_path, kind, fmt, options):
    source, source_format = SOURCES[kind](tmp_path)
    convert_and_compare(source, source_format, tmp_path, fmt, options, "-c")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4095, 4097, 65535, 65537, MIB - 1, 2 * MIB + 1, 3 * MIB + 77777])
@pytest.mark.parametrize("fmt, options", [("raw", ""), ("qcow2", ""), ("qcow2", "cluster_size=512"),
                                          ("qcow2", "extended_l2=on")])
def test_sizes(tmp_path, size, fmt, options):
    source = make_raw(tmp_path / "source.raw", size, [(0, random.Random(size).randbytes(size))])
    if size and fmt == "qcow2":
        convert_and_compare(source, "raw", tmp_path, fmt, options, "-c")
    target = convert_and_compare(source, "raw", tmp_path, fmt, options)
    imgtk("convert", "-f", fmt, "-O", "raw", target, tmp_path / "back")
    # A disk has whole sectors, as qemu-img's has.
    assert (tmp_path / "back").read_bytes() == source.read_bytes().ljust(-(-size // 512) * 512, b"\0")


@pytest.mark.parametrize("fmt", ["vmdk", "vdi", "vpc", "vhdx"])
@pytest.mark.parametrize("size", [512, 4096, MIB - 512, 2 * MIB + 512])
def test_sizes_of_whole_sectors(tmp_path, fmt, size):
    source = make_raw(tmp_path / "source.raw", size, [(0, random.Random(size).randbytes(size))])
    convert_and_compare(source, "raw", tmp_path, fmt, "force_size=on" if fmt == "vpc" else "")


# ---- Flags ---------------------------------------------------------------------

@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("sparse", ["0", "4k", "64k", "1M"])
def test_sparse_size(tmp_path, fmt, sparse):
    source, _ = SOURCES["small-holes"](tmp_path)
    with open(source, "r+b") as file:
        file.seek(512 * KIB)
        file.write(bytes(300 * KIB))
    ours = convert_and_compare(source, "raw", tmp_path, fmt, "", "-S", sparse)
    theirs = tmp_path / "theirs"
    qemu_img("convert", "-f", "raw", "-O", fmt, "-S", sparse, source, theirs)
    if fmt == "raw":
        assert_same_bytes(ours, theirs)
    if sparse == "0":
        rows = json.loads(qemu_img("map", "--output=json", "-f", fmt, ours).out)
        assert all(row["data"] for row in rows), rows
    if sparse in ("0", "4k"):  # above, qemu-img keeps the holes that a file has, however short
        assert allocated(ours) <= allocated(theirs) * 1.02 + 64 * KIB


@pytest.mark.parametrize("kind", ["compressed", "subclusters"])
def test_raw_is_as_sparse_as_qemu_imgs(tmp_path, kind):
    source, source_format = SOURCES[kind](tmp_path)
    imgtk("convert", "-O", "raw", "-f", source_format, source, tmp_path / "ours")
    qemu_img("convert", "-O", "raw", "-f", source_format, source, tmp_path / "theirs")
    assert allocated(tmp_path / "ours") <= allocated(tmp_path / "theirs") * 1.03 + 16 * KIB


@pytest.mark.deflate
@pytest.mark.parametrize("options, flags", [("", []), ("cluster_size=4k", []), ("", ["-c"]), ("extended_l2=on", [])])
def test_qcow2_is_no_larger_than_qemu_imgs(tmp_path, options, flags):
    source, _ = SOURCES["sparse"](tmp_path)
    imgtk("convert", *flags, "-O", "qcow2", *opts(options), source, tmp_path / "ours")
    qemu_img("convert", *flags, "-O", "qcow2", *opts(options), source, tmp_path / "theirs")
    assert os.path.getsize(tmp_path / "ours") <= os.path.getsize(tmp_path / "theirs") * 1.02


def test_sources_are_concatenated(tmp_path):
    one = make_raw(tmp_path / "one", 70000, [(0, compressible(70000))])
    two = make_image(tmp_path / "two", MIB, writes=["write -P 7 100k 300k", "write -z 500k 64k"])
    three = make_raw(tmp_path / "three", 513, [(0, b"x" * 513)])
    for fmt in ("raw", "qcow2"):
        for program, name in ((imgtk, "ours"), (qemu_img, "theirs")):
            program("convert", "-O", fmt, one, two, three, one, tmp_path / name)
        assert "identical" in qemu_img("compare", "-f", fmt, "-F", fmt, tmp_path / "ours", tmp_path / "theirs").out
        if fmt == "raw":
            assert_same_bytes(tmp_path / "ours", tmp_path / "theirs")


def test_snapshot(tmp_path):
    source = make_image(tmp_path / "source.qcow2", MIB, writes=["write -P 1 0 300k"])
    qemu_img("snapshot", "-c", "first", source)
    qemu_io(source, "write -P 2 100k 500k", "write -z 0 64k")
    for name in ("first", "1"):
        imgtk("convert", "-O", "raw", "-l", name, source, tmp_path / "ours")
        qemu_img("convert", "-O", "raw", "-l", name, source, tmp_path / "theirs")
        assert_same_bytes(tmp_path / "ours", tmp_path / "theirs")
    assert not imgtk_fails("convert", "-O", "raw", "-l", "none", source, tmp_path / "none").out
    assert not (tmp_path / "none").exists()


# ---- Over a backing file -------------------------------------------------------

def layer_rows(image, folder):
    """What one layer holds itself, as qemu-img's map of the chain tells."""
    return [row for row in json.loads(qemu_img("map", "--output=json", image, cwd=folder).out) if row["depth"] == 0 and
            row["present"]]


@pytest.mark.parametrize("flags", [[], ["-c"]])
@pytest.mark.parametrize("base_size", [3 * MIB, MIB + 512, 5 * MIB])
def test_over_a_backing_file_the_difference_is_written(tmp_path, base_size, flags):
    size = 3 * MIB
    content = bytearray(compressible(size))
    make_raw(tmp_path / "base.raw", base_size, [(0, content[:base_size])])
    for offset in (65536 * 3, 65536 * 20 + 5):
        content[offset:offset + 100] = b"!" * 100
    content[65536 * 8:65536 * 10] = bytes(65536 * 2)  # zeroes over data
    make_raw(tmp_path / "source.raw", size, [(0, content)])
    imgtk("convert", *flags, "-O", "qcow2", "-B", "base.raw", "-F", "raw", "source.raw", "over.qcow2", cwd=tmp_path)
    qemu_img("convert", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "source.raw", "theirs.qcow2", cwd=tmp_path)
    assert "identical" in qemu_img("compare", "-f", "raw", "source.raw", "over.qcow2", cwd=tmp_path).out
    qemu_img("check", "over.qcow2", cwd=tmp_path)
    info = json.loads(qemu_img("info", "--output=json", "over.qcow2", cwd=tmp_path).out)
    assert (info["backing-filename"], info["backing-filename-format"]) == ("base.raw", "raw")
    for row in layer_rows("over.qcow2", tmp_path):
        for at in range(row["start"], row["start"] + row["length"], 65536):
            assert at // 65536 in (3, 8, 9, 20) or at + 65536 > base_size, row
    assert os.path.getsize(tmp_path / "over.qcow2") <= os.path.getsize(tmp_path / "theirs.qcow2")


def test_a_source_over_the_same_backing_file(tmp_path):
    base = make_image(tmp_path / "base.qcow2", MIB * 64, writes=["write -P 1 0 32M"])
    source = make_image(tmp_path / "source.qcow2", MIB * 64, backing="base.qcow2", backing_fmt="qcow2",
                        writes=["write -P 2 1M 1M", "write -z 8M 1M", "write -P 1 5M 64k"])
    imgtk("convert", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "source.qcow2", "over.qcow2", cwd=tmp_path)
    assert "identical" in qemu_img("compare", source, tmp_path / "over.qcow2").out
    assert os.path.getsize(tmp_path / "over.qcow2") < 2 * MIB
    assert digest(base) == digest(base)


def test_a_missing_backing_file_leaves_nothing(tmp_path):
    source = make_raw(tmp_path / "source.raw", MIB)
    imgtk_fails("convert", "-O", "qcow2", "-B", "gone", "-F", "raw", source, tmp_path / "over", match="gone")
    assert not (tmp_path / "over").exists()


# ---- One file under two names --------------------------------------------------

@pytest.mark.parametrize("flags", [[], ["-n"]])
@pytest.mark.parametrize("how", ["same", "dotted", "hard", "symbolic", "backing"])
def test_the_source_is_never_the_target(tmp_path, how, flags):
    source = make_image(tmp_path / "source.qcow2", MIB, writes=["write -P 1 0 1M"])
    before = digest(source)
    target = tmp_path / "target"
    image = source
    if how == "hard":
        os.link(source, target)
    elif how == "symbolic":
        target.symlink_to(source)
    elif how == "backing":
        image = make_image(tmp_path / "over", MIB, backing="source.qcow2", backing_fmt="qcow2")
        target = source
    else:
        target = source if how == "same" else tmp_path / "." / ".." / tmp_path.name / "source.qcow2"
    imgtk_fails("convert", *flags, "-O", "raw", image, target)
    assert digest(source) == before


# ---- Memory --------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.unsanitized
@pytest.mark.parametrize("options, size", [("", TIB), ("preallocation=metadata,cluster_size=2M", TIB),
                                           ("preallocation=metadata", 256 << 30)])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_memory_is_bounded(tmp_path, options, size, fmt):
    source = make_image(tmp_path / "source.qcow2", size, options=options)
    assert peak_memory("convert", "-m", "4", "-O", fmt, source, tmp_path / "target") < 64 * MIB
    assert allocated(tmp_path / "target") < 100 * MIB
    assert peak_memory("map", "--output=json", source) < 64 * MIB


@pytest.mark.parametrize("flags, kept", [([], True), (["-t", "writeback", "-T", "writeback"], True),
                                         (["-t", "none", "-T", "none"], False), (["-t", "directsync"], False)])
def test_cache_modes(tmp_path, flags, kept):
    """What stays in the page cache; fincore counts it."""
    source = make_raw(tmp_path / "source.raw", 8 * MIB, [(0, compressible(8 * MIB))])
    imgtk("convert", *flags, "-f", "raw", "-O", "raw", source, tmp_path / "target")
    assert_same_bytes(source, tmp_path / "target")

    def cached(path):
        return int(execute([tool("fincore"), "-b", "-n", "-o", "RES", path]).out)

    # assert_same_bytes() has read both: what was dropped by imgtk is told by a run that nothing follows.
    imgtk("convert", *flags, "-f", "raw", "-O", "raw", source, tmp_path / "target")
    assert (cached(tmp_path / "target") == 8 * MIB) == kept
    assert (cached(source) > 0) == (kept or "-T" not in flags)

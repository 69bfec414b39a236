"""VMDK against qemu-img and vmdkinfo: what one writes the other reads, for every subformat and many sizes."""
import json
import os
import random
import re

import pytest

from imgtk_test import (GIB, KIB, MIB, TIB, allocated, assert_same_bytes, compressible, digest, environment, execute,
                        imgtk, imgtk_fails, make_image, make_raw, qemu_img, tool)
from vmdk_build import parse_stream

SUBFORMATS = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]
SPARSE = ["monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized"]
GRAIN = 64 * KIB

slow = pytest.mark.slow
SIZES = [512, 4096, 64 * KIB - 512, 64 * KIB, 64 * KIB + 512, 32 * MIB, 32 * MIB + 512, 33 * MIB + 1536,
         pytest.param(2 * GIB - 512, marks=slow), pytest.param(2 * GIB, marks=slow), 2 * GIB + 512,
         pytest.param(127 * GIB, marks=slow)]


def pieces(size, seed=3):
    """Data at both ends, across every border that matters, and here and there."""
    rng = random.Random(seed)
    places = [(0, 512), (size - 512, 512)]
    for border in (64 * KIB, 32 * MIB, 2 * GIB, 64 * GIB):
        if border + 700 <= size:
            places.append((border - 300, 1000))
    for _ in range(12):
        at = rng.randrange(0, size, 512)
        places.append((at, min(size - at, rng.choice([512, 5 * KIB, 200 * KIB, MIB]))))
    return [(at, compressible(length, seed + i)) for i, (at, length) in enumerate(places)]


def source(tmp_path, size, seed=3):
    return make_raw(tmp_path / "source.raw", size, pieces(size, seed))


def rounded(size, subformat):
    unit = GRAIN if subformat == "streamOptimized" else 512
    return (size + unit - 1) // unit * unit


def rows(result):
    """A map as a list, without the fields that only newer versions of qemu-img have."""
    kept = ("start", "length", "depth", "zero", "data", "offset")
    return [{key: row[key] for key in kept if key in row} for row in json.loads(result.out)]


def assert_same_disk(one, two):
    """The same bytes; holes of large files are not read."""
    if os.path.getsize(one) <= 100 * MIB:
        assert_same_bytes(one, two)
    assert os.path.getsize(one) == os.path.getsize(two)
    qemu_img("compare", "-f", "raw", "-F", "raw", one, two)


def write(subformat, raw, image, options=""):
    imgtk("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}{options}", raw, image)


# ---- Both directions -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_qemu_reads_what_imgtk_writes(tmp_path, subformat, size):
    raw = source(tmp_path, size)
    image = tmp_path / "disk.vmdk"
    write(subformat, raw, image)
    qemu_img("check", "-q", "-f", "vmdk", image)
    assert json.loads(qemu_img("info", "--output=json", image).out)["virtual-size"] == rounded(size, subformat)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_imgtk_reads_what_qemu_writes(tmp_path, subformat, size):
    raw = source(tmp_path, size)
    image, back = tmp_path / "disk.vmdk", tmp_path / "back.raw"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, image)
    assert rows(imgtk("map", "--output=json", image)) == rows(qemu_img("map", "--output=json", image))
    imgtk("convert", "-f", "vmdk", "-O", "raw", image, back)
    assert_same_disk(raw, back)


@pytest.mark.parametrize("size", [512, 33 * MIB + 1536, 2 * GIB + 512])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_imgtk_reads_what_imgtk_writes(tmp_path, subformat, size):
    raw = source(tmp_path, size)
    image, back = tmp_path / "disk.vmdk", tmp_path / "back.raw"
    write(subformat, raw, image)
    imgtk("convert", "-O", "raw", image, back)
    os.truncate(raw, rounded(size, subformat))
    assert_same_disk(raw, back)
    assert rows(imgtk("map", "--output=json", image)) == rows(qemu_img("map", "--output=json", image))


@pytest.mark.slow
@pytest.mark.parametrize("subformat", SPARSE)
def test_two_tib(tmp_path, subformat):
    raw = make_raw(tmp_path / "source.raw", 2 * TIB, [(0, b"first"), (TIB, compressible(MIB)), (2 * TIB - 5, b"final")])
    image = tmp_path / "disk.vmdk"
    write(subformat, raw, image)
    assert json.loads(qemu_img("info", "--output=json", image).out)["virtual-size"] == 2 * TIB
    ours = rows(imgtk("map", "--output=json", image))
    shown = [(row["start"], row["length"]) for row in ours if row["data"]]
    assert shown == [(0, GRAIN), (TIB, MIB), (2 * TIB - GRAIN, GRAIN)]
    if subformat == "streamOptimized":  # qemu-img takes half a minute for the others; smaller ones are above
        assert rows(qemu_img("map", "--output=json", image, timeout=600)) == ours
    assert sum(allocated(path) for path in tmp_path.glob("disk*")) < 16 * MIB


@pytest.mark.parametrize("program", ["qemu", "imgtk"])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_info_is_qemus(tmp_path, subformat, program):
    """As far as one file tells it: info follows no reference."""
    image = tmp_path / "disk.vmdk"
    words = ["create", "-q", "-f", "vmdk", "-o", f"subformat={subformat},adapter_type=lsilogic", image, "3G"]
    (qemu_img if program == "qemu" else imgtk)(*words)
    ours = json.loads(imgtk("info", "--output=json", image).out)
    theirs = json.loads(qemu_img("info", "--output=json", image).out)
    for extent in ours["format-specific"]["data"]["extents"]:
        extent["filename"] = str(tmp_path / extent["filename"])
    if subformat == "twoGbMaxExtentSparse":
        del theirs["cluster-size"]
        for extent in theirs["format-specific"]["data"]["extents"]:
            del extent["cluster-size"]
    for key in ("virtual-size", "format", "cluster-size", "format-specific", "dirty-flag"):
        assert ours.get(key) == theirs.get(key), key


def descriptor_lines(path):
    """The lines that are not blank, without the CID, which is random."""
    text = re.search(rb"# Disk DescriptorFile.*?ddb.toolsVersion[^\n]*", path.read_bytes(), re.S).group()
    return [line for line in text.decode().splitlines() if line and not line.startswith("CID=")]


@pytest.mark.parametrize("options", ["", ",compat6=on", ",hwversion=11,toolsversion=10", ",adapter_type=lsilogic",
                                     ",adapter_type=legacyESX", ",adapter_type=buslogic"])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_files_and_descriptor_are_qemus(tmp_path, subformat, options):
    for name, run in (("qemu", qemu_img), ("imgtk", imgtk)):
        (tmp_path / name).mkdir()
        run("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}{options}", "disk.vmdk", "5G",
            cwd=tmp_path / name)
    ours, theirs = (descriptor_lines(tmp_path / name / "disk.vmdk") for name in ("imgtk", "qemu"))
    if subformat == "streamOptimized":  # VMware's own streams are read-only
        ours = [line.replace("RDONLY ", "RW ") for line in ours]
    assert ours == theirs
    assert sorted(os.listdir(tmp_path / "imgtk")) == sorted(os.listdir(tmp_path / "qemu"))


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_vmdkinfo_reads_what_imgtk_writes(tmp_path, subformat):
    raw = source(tmp_path, 4 * GIB)
    write(subformat, raw, tmp_path / "disk.vmdk", ",cid=1234abcd")
    out = execute([tool("vmdkinfo"), tmp_path / "disk.vmdk"]).out
    assert "(4294967296 bytes)" in out and "0x1234abcd" in out
    assert len(re.findall(r"Extent: \d", out)) == (2 if subformat.startswith("twoGb") else 1)


# ---- Writing --------------------------------------------------------------------------------------------------------

@pytest.mark.deflate
def test_stream_is_to_the_specification(tmp_path):
    raw = source(tmp_path, 70 * MIB + 512)
    write("streamOptimized", raw, tmp_path / "disk.vmdk")
    header, grains, _ = parse_stream(tmp_path / "disk.vmdk")
    assert (header["version"], header["flags"], header["compression"]) == (3, 0x30001, 1)
    assert (header["gd"], header["rgd"], header["gtes"], header["overhead"]) == (2**64 - 1, 0, 512, 128)
    assert header["capacity"] * 512 == rounded(70 * MIB + 512, "streamOptimized")
    data = raw.read_bytes().ljust(header["capacity"] * 512, b"\0")
    for at in range(0, len(data), GRAIN):
        assert grains.pop(at // 512, bytes(GRAIN)) == data[at:at + GRAIN], at
    assert not grains


@pytest.mark.deflate
@pytest.mark.threads
def test_stream_to_a_pipe_is_the_same(tmp_path):
    raw = source(tmp_path, 70 * MIB)
    words = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized,cid=77"]
    imgtk(*words, raw, tmp_path / "disk.vmdk")
    piped = imgtk(*words, "-m", 1, raw, "-").raw
    assert imgtk(*words, "-m", 4, raw, "-").raw == piped
    assert imgtk("convert", "-f", "raw", "-O", "vmdk", "-o", "cid=77", raw, "-").raw == piped, "a pipe means a stream"
    (tmp_path / "piped.vmdk").write_bytes(piped)
    parse_stream(tmp_path / "piped.vmdk")
    assert (tmp_path / "disk.vmdk").read_bytes()[64 * KIB:] == piped[64 * KIB:]


@pytest.mark.threads
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_workers_do_not_matter(tmp_path, subformat):
    raw = source(tmp_path, 2 * GIB + 8 * MIB if subformat.endswith("Sparse") else 70 * MIB)
    made = []
    for workers in (1, 2, 7):
        folder = tmp_path / str(workers)
        folder.mkdir()
        imgtk("convert", "-m", workers, "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat},cid=1", raw,
              folder / "disk.vmdk")
        made.append({path.name: digest(path) for path in folder.iterdir()})
    assert made[0] == made[1] == made[2]


def test_content_id(tmp_path):
    image = tmp_path / "disk.vmdk"

    def cid(*options, **env):
        imgtk("create", "-q", "-f", "vmdk", *options, image, "1M", env=environment(**env))
        return json.loads(imgtk("info", "--output=json", image).out)["format-specific"]["data"]["cid"]

    assert cid("-o", "cid=00c0ffee") == 0xC0FFEE
    assert cid(SOURCE_DATE_EPOCH="1700000000") == cid(SOURCE_DATE_EPOCH="1700000000")
    assert cid(SOURCE_DATE_EPOCH="1700000000") != cid(SOURCE_DATE_EPOCH="1700000001")
    assert len({cid(SOURCE_DATE_EPOCH=None) for _ in range(4)}) > 1


@pytest.mark.parametrize("options, match", [
    ("compat6=on,hwversion=7", "compat6"), ("subformat=monolithicFlat,zeroed_grain=on", "zeroed grain"),
    ("subformat=streamOptimized,zeroed_grain=on", "zeroed grains"), ('toolsversion="', "quotes"),
    ("subformat=nosuch", "subformat"), ("backing_fmt=qcow2", "backing_fmt"), ("cid=ffffffff", "cid"),
    ("cid=xyz", "hexadecimal")])
def test_bad_options(tmp_path, options, match):
    imgtk_fails("create", "-q", "-f", "vmdk", "-o", options, tmp_path / "disk.vmdk", "1M", match=match)
    assert not list(tmp_path.iterdir())


def test_subformats_that_cannot_be_piped_or_compressed(tmp_path):
    raw = make_raw(tmp_path / "source.raw", MIB)
    image = tmp_path / "disk.vmdk"
    words = ["-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicSparse", raw]
    imgtk_fails("convert", "-c", *words, image, match="streamOptimized can")
    imgtk_fails("convert", *words, "-", match="streamOptimized can")
    imgtk("convert", "-c", "-f", "raw", "-O", "vmdk", raw, image)
    parse_stream(image)


@pytest.mark.parametrize("subformat, options", [("monolithicSparse", ""), ("monolithicSparse", ",zeroed_grain=on"),
                                                ("twoGbMaxExtentSparse", ""), ("streamOptimized", "")])
def test_overlay(tmp_path, subformat, options):
    """What differs from the parent is written; zeroes over its data are said, not left out."""
    base = make_image(tmp_path / "base.vmdk", "40M", "vmdk", writes=["write -P 1 0 1M", "write -P 2 33M 200k"])
    raw = tmp_path / "source.raw"
    qemu_img("convert", "-O", "raw", base, raw)
    with open(raw, "r+b") as file:
        file.seek(128 * KIB)
        file.write(bytes(256 * KIB))
        file.seek(35 * MIB)
        file.write(b"new" * 1000)
    image = tmp_path / "disk.vmdk"
    imgtk("convert", "-f", "raw", "-O", "vmdk", "-B", "base.vmdk", "-F", "vmdk", "-o",
          f"subformat={subformat}{options}", raw, image, cwd=tmp_path)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, image)
    imgtk("convert", "-f", "vmdk", "-O", "raw", image, tmp_path / "back.raw")
    assert_same_bytes(raw, tmp_path / "back.raw")
    ours = json.loads(imgtk("map", "--output=json", image).out)
    assert any(row["depth"] == 0 and row["zero"] for row in ours) == bool(options)
    assert {row["start"] // GRAIN for row in ours if row["depth"] == 0} >= {2, 35 * MIB // GRAIN}


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_everything_allocated(tmp_path, subformat):
    raw = make_raw(tmp_path / "source.raw", 3 * MIB, [(MIB, b"x")])
    image = tmp_path / "disk.vmdk"
    imgtk("convert", "-S", 0, "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, image)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, image)
    if subformat in ("monolithicSparse", "streamOptimized"):
        shown = json.loads(imgtk("check", "--output=json", image).out)
        assert shown["allocated-clusters"] == shown["total-clusters"] == 48
    else:
        assert sum(allocated(path) for path in tmp_path.glob("disk*")) >= 3 * MIB

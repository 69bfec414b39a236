"""VHD: what qemu-img writes imgtk reads, and the reverse, with vhdiinfo; what qemu-img cannot make is built here."""
import json
import os
import random
import re
import struct
import subprocess
import uuid as uuids

import pytest

import build_vhd
from build_vhd import DIFFERENCING, DYNAMIC, FIXED, SECTOR, UNALLOCATED
from imgtk_test import (GIB, IMGTK, KIB, MIB, allocated, assert_same_bytes, digest, environment, execute, imgtk,
                        imgtk_fails, make_raw, missing, qemu_img, qemu_io, tool)

SUBFORMATS = ["", "subformat=dynamic", "subformat=fixed", "force_size=on", "subformat=fixed,force_size=on"]
SIZES = [SECTOR, 4 * KIB, 34 * KIB, 34 * KIB + SECTOR, 1 * MIB, 2 * MIB, 2 * MIB + SECTOR, 33 * MIB + 7 * SECTOR,
         100 * MIB]
# Where the geometry changes its form, its largest value, and the largest disk.
LARGE = [1 * GIB, 1023 * 16 * 63 * SECTOR, 1024 * 16 * 63 * SECTOR + SECTOR, 31 * GIB + SECTOR,
         65535 * 16 * 63 * SECTOR, 127 * GIB, 65535 * 16 * 255 * SECTOR - SECTOR,
         65535 * 16 * 255 * SECTOR, 65535 * 16 * 255 * SECTOR + SECTOR, 128 * GIB, 2040 * GIB]


def options(text):
    return ["-o", text] if text else []


def scattered(size, seed=0, count=24):
    """Pieces of data over a disk: short ones, long ones, over block boundaries, the first and the last sector."""
    rng = random.Random(seed)
    pieces = [(0, rng.randbytes(SECTOR)), (size - SECTOR, rng.randbytes(SECTOR))]
    for _ in range(count):
        length = min(size, rng.choice([SECTOR, 4 * KIB, 70 * KIB, 600 * KIB]))
        pieces.append((rng.randrange(0, (size - length) // SECTOR + 1) * SECTOR, rng.randbytes(length)))
    if size > 3 * MIB:
        pieces.append((2 * MIB - 4 * KIB, rng.randbytes(8 * KIB)))
    return pieces


def virtual_size(path, program=imgtk, *extra):
    return json.loads(program("info", *extra, "--output=json", path).out)["virtual-size"]


def assert_reads_as(image, raw):
    """The image holds the raw file's bytes and then zeroes, in the eyes of imgtk."""
    imgtk("convert", "-f", "vpc", "-O", "raw", image, f"{image}.raw")
    assert os.path.getsize(f"{image}.raw") >= os.path.getsize(raw)
    with open(f"{image}.raw", "rb") as file:
        file.seek(os.path.getsize(raw))
        assert not file.read().strip(b"\0")
    os.truncate(f"{image}.raw", os.path.getsize(raw))
    assert_same_bytes(f"{image}.raw", raw)


def without_compressed(rows):
    return [{key: value for key, value in row.items() if key != "compressed"} for row in rows]


# ---- qemu-img's images --------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_reads_what_qemu_writes(tmp_path, subformat, size):
    raw = make_raw(tmp_path / "raw", size, scattered(size))
    qemu_img("convert", "-f", "raw", "-O", "vpc", *options(subformat), raw, tmp_path / "a.vhd")
    assert_reads_as(tmp_path / "a.vhd", raw)
    assert virtual_size(tmp_path / "a.vhd") == virtual_size(tmp_path / "a.vhd", qemu_img, "-f", "vpc")
    ours = json.loads(imgtk("map", "--output=json", tmp_path / "a.vhd").out)
    theirs = json.loads(qemu_img("map", "-f", "vpc", "--output=json", tmp_path / "a.vhd").out)
    assert without_compressed(ours) == without_compressed(theirs)
    imgtk("check", tmp_path / "a.vhd")


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("subformat", ["", "force_size=on"])
def test_reads_large_ones(tmp_path, subformat, size):
    qemu_img("create", "-q", "-f", "vpc", *options(subformat), tmp_path / "a.vhd", size)
    qemu_io(tmp_path / "a.vhd", f"write -P 7 {size - SECTOR} 512", fmt="vpc")
    assert virtual_size(tmp_path / "a.vhd") == virtual_size(tmp_path / "a.vhd", qemu_img, "-f", "vpc")
    rows = json.loads(imgtk("map", "--output=json", tmp_path / "a.vhd").out)
    assert rows == json.loads(qemu_img("map", "-f", "vpc", "--output=json", tmp_path / "a.vhd").out) or \
        without_compressed(rows) == without_compressed(
            json.loads(qemu_img("map", "-f", "vpc", "--output=json", tmp_path / "a.vhd").out))


@pytest.mark.parametrize("creator", [b"win ", b"d2v ", b"tap\0", b"CTXS", b"qem2", b"vpc ", b"qemu", b"vbox", b"vs  "])
@pytest.mark.parametrize("geometry", [(100, 4, 17), (65535, 16, 255)])
def test_the_creator_decides_the_size_as_with_qemu(tmp_path, creator, geometry):
    size = 100 * 4 * 17 * SECTOR + 5 * SECTOR
    image = build_vhd.build(tmp_path / "a.vhd", size, creator=creator, geometry=geometry)
    assert virtual_size(image) == virtual_size(image, qemu_img)
    for rule in ("chs", "current_size"):
        node = f"driver=vpc,file.filename={image},force_size_calc={rule}"
        if rule == "chs" and geometry[0] == 65535:  # more than the block table has
            imgtk_fails("info", "--image-opts", node, match="block table has")
            continue
        assert virtual_size(node, imgtk, "--image-opts") == virtual_size(node, qemu_img, "--image-opts")


def test_azure_images_are_sized_in_bytes(tmp_path):
    image = build_vhd.build(tmp_path / "a.vhd", 3 * MIB, creator=b"wa\0\0", geometry=(1, 4, 17))
    assert virtual_size(image) == 3 * MIB


# ---- Our images ----------------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_qemu_reads_what_we_write(tmp_path, subformat, size):
    raw = make_raw(tmp_path / "raw", size, scattered(size, 1))
    imgtk("convert", "-f", "raw", "-O", "vpc", *options(subformat), raw, tmp_path / "a.vhd")
    qemu_img("convert", "-f", "raw", "-O", "vpc", *options(subformat), raw, tmp_path / "b.vhd")
    assert virtual_size(tmp_path / "a.vhd") == virtual_size(tmp_path / "b.vhd")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vpc", raw, tmp_path / "a.vhd").out
    assert_reads_as(tmp_path / "a.vhd", raw)
    imgtk("check", tmp_path / "a.vhd")
    info = json.loads(imgtk("info", "--output=json", tmp_path / "a.vhd").out)
    assert info.get("cluster-size") == (None if "fixed" in subformat else 2 * MIB)


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("subformat", ["", "force_size=on"])
def test_our_large_ones_have_qemus_size(tmp_path, subformat, size):
    imgtk("create", "-q", "-f", "vpc", *options(subformat), tmp_path / "a.vhd", size)
    qemu_img("create", "-q", "-f", "vpc", *options(subformat), tmp_path / "b.vhd", size)
    assert virtual_size(tmp_path / "a.vhd", qemu_img) == virtual_size(tmp_path / "b.vhd", qemu_img)
    assert geometry_of(tmp_path / "a.vhd") == geometry_of(tmp_path / "b.vhd")


def geometry_of(path):
    with open(path, "rb") as file:
        file.seek(-SECTOR + 40, os.SEEK_END)
        return file.read(24)  # both sizes, the geometry, the type


@pytest.mark.parametrize("size", [0, 1, 511, 513, 35 * KIB + 1])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_odd_and_empty_sizes_are_rounded_as_qemus(tmp_path, subformat, size):
    imgtk("create", "-q", "-f", "vpc", *options(subformat), tmp_path / "a.vhd", size)
    qemu_img("create", "-q", "-f", "vpc", *options(subformat), tmp_path / "b.vhd", size)
    assert geometry_of(tmp_path / "a.vhd") == geometry_of(tmp_path / "b.vhd")
    imgtk("check", tmp_path / "a.vhd")


def test_beyond_2040_gib_is_refused(tmp_path):
    imgtk_fails("create", "-q", "-f", "vpc", tmp_path / "a.vhd", 2040 * GIB + 1, match="2040 GiB")
    assert not os.path.exists(tmp_path / "a.vhd")


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_vhdiinfo_agrees(tmp_path, subformat):
    size = 33 * MIB + 7 * SECTOR
    raw = make_raw(tmp_path / "raw", size, scattered(size, 2))
    uuid = "12345678-9abc-def0-1234-56789abcdef0"
    imgtk("convert", "-f", "raw", "-O", "vpc", "-o", f"uuid={uuid}", *options(subformat), raw, tmp_path / "a.vhd")
    out = execute([tool("vhdiinfo"), tmp_path / "a.vhd"]).out
    assert f"({virtual_size(tmp_path / 'a.vhd')} bytes)" in out
    assert uuid in out
    assert ("Fixed" if "fixed" in subformat else "Dynamic") in out


def test_zeroes_take_no_space_and_full_allocation_takes_all(tmp_path):
    raw = make_raw(tmp_path / "raw", 64 * MIB, [(MIB, b"x" * 4096), (33 * MIB, b"y" * 4096)])
    imgtk("convert", "-O", "vpc", raw, tmp_path / "a.vhd")
    assert os.path.getsize(tmp_path / "a.vhd") < 5 * MIB
    assert allocated(tmp_path / "a.vhd") < 100 * KIB
    rows = json.loads(imgtk("map", "--output=json", tmp_path / "a.vhd").out)
    assert sum(row["length"] for row in rows if row["data"]) == 8192
    imgtk("convert", "-S", "0", "-O", "vpc", raw, tmp_path / "b.vhd")
    assert os.path.getsize(tmp_path / "b.vhd") > 64 * MIB
    assert allocated(tmp_path / "b.vhd") > 64 * MIB
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vpc", raw, tmp_path / "b.vhd").out


def test_azure_profile(tmp_path):
    size = 5 * MIB + SECTOR
    raw = make_raw(tmp_path / "raw", size, scattered(size, 3))
    imgtk("convert", "-O", "vpc", "-o", "profile=azure", raw, tmp_path / "a.vhd")
    assert os.path.getsize(tmp_path / "a.vhd") == 6 * MIB + SECTOR
    assert virtual_size(tmp_path / "a.vhd") == 6 * MIB == virtual_size(tmp_path / "a.vhd", qemu_img, "-f", "vpc")
    assert_reads_as(tmp_path / "a.vhd", raw)
    imgtk_fails("convert", "-O", "vpc", "-o", "profile=azure,subformat=dynamic", raw, tmp_path / "b.vhd",
                match="profile=azure")
    assert not os.path.exists(tmp_path / "b.vhd")


@pytest.mark.threads
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_the_same_input_makes_the_same_file(tmp_path, subformat):
    raw = make_raw(tmp_path / "raw", 40 * MIB, scattered(40 * MIB, 4))
    extra = ["-o", "uuid=12345678-9abc-def0-1234-56789abcdef0"]
    env = environment(SOURCE_DATE_EPOCH=1700000000)
    digests = set()
    for workers in (1, 2, 7):
        imgtk("convert", "-m", workers, "-O", "vpc", *options(subformat), *extra, raw, tmp_path / "a.vhd", env=env)
        digests.add(digest(tmp_path / "a.vhd"))
    imgtk("convert", "-O", "vpc", *options(subformat), *extra, "-o", "timestamp=1700000000", raw, tmp_path / "a.vhd")
    digests.add(digest(tmp_path / "a.vhd"))
    assert len(digests) == 1
    info = json.loads(imgtk("info", "--output=json", tmp_path / "a.vhd").out)["format-specific"]["data"]
    assert info["timestamp"] == 1700000000


def test_bad_options_are_refused(tmp_path):
    raw = make_raw(tmp_path / "raw", MIB)
    for option, match in [("uuid=x", "not a UUID"), ("timestamp=1", "timestamp"), ("subformat=x", "subformat")]:
        imgtk_fails("convert", "-O", "vpc", "-o", option, raw, tmp_path / "a.vhd", match=match)
    imgtk_fails("convert", "-O", "vpc", raw, tmp_path / "a.vhd", match="SOURCE_DATE_EPOCH",
                env=environment(SOURCE_DATE_EPOCH="yesterday"))
    imgtk_fails("convert", "-c", "-O", "vpc", raw, tmp_path / "a.vhd", match="ompress")


def test_the_source_date_alone_makes_it_reproducible(tmp_path):
    raw = make_raw(tmp_path / "raw", 5 * MIB, scattered(5 * MIB, 4))
    digests = []
    for date in (1700000000, 1700000000, 1700000001, 0, None):
        imgtk("convert", "-O", "vpc", raw, tmp_path / "a", env=environment(SOURCE_DATE_EPOCH=date))
        digests.append(digest(tmp_path / "a"))
    assert digests[0] == digests[1] and len(set(digests)) == 4


# ---- Pipes and existing targets ------------------------------------------------

@pytest.mark.threads
@pytest.mark.parametrize("size", [SECTOR, 2 * MIB, 33 * MIB + 7 * SECTOR])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_streams_to_a_pipe(tmp_path, subformat, size):
    raw = make_raw(tmp_path / "raw", size, scattered(size, 5))
    if size > 30 * MIB:  # blocks that look like data and are zeroes: they are planned, but not written
        with open(raw, "r+b") as file:
            for at in (8 * MIB, 20 * MIB, 31 * MIB):
                file.seek(at)
                file.write(bytes(2 * MIB))
    with open(tmp_path / "a.vhd", "wb") as out:
        pipe = subprocess.Popen([IMGTK, "convert", "-O", "vpc", *options(subformat), raw, "-"], stdout=subprocess.PIPE,
                                env=environment())
        subprocess.run(["cat"], stdin=pipe.stdout, stdout=out, check=True)
        pipe.stdout.close()
        assert pipe.wait() == 0
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vpc", raw, tmp_path / "a.vhd").out
    assert_reads_as(tmp_path / "a.vhd", raw)
    imgtk("check", tmp_path / "a.vhd")
    imgtk("convert", "-O", "vpc", *options(subformat), raw, tmp_path / "b.vhd")
    assert os.path.getsize(tmp_path / "a.vhd") >= os.path.getsize(tmp_path / "b.vhd")


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("zero", [[], ["--target-is-zero"]])
def test_overwrites_an_existing_file(tmp_path, subformat, zero):
    raw = make_raw(tmp_path / "raw", 7 * MIB, scattered(7 * MIB, 6))
    old = make_raw(tmp_path / "a.vhd", 70 * MIB, [] if zero else [(0, b"\xAA" * 70 * MIB)])
    imgtk("convert", "-n", *zero, "-O", "vpc", *options(subformat), raw, old)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vpc", raw, old).out
    assert_reads_as(old, raw)
    imgtk("check", old)


def loop_device(path):
    """Attaches a file as a block device."""
    if os.geteuid() != 0:
        missing("attaching a loop device needs root")
    done = execute([tool("losetup"), "-f", "--show", path], code=None)
    if done.code != 0:
        missing(f"no loop device: {done.err.strip()}")
    return done.out.strip()


@pytest.mark.parametrize("subformat, size, code", [("", 40 * MIB, 0), ("", 6 * MIB, 1), ("", SECTOR, 1),
                                                   ("subformat=fixed,force_size=on", 20 * MIB + SECTOR, 0),
                                                   ("subformat=fixed,force_size=on", 20 * MIB + 2 * SECTOR, 1)])
def test_block_devices(tmp_path, subformat, size, code):
    raw = make_raw(tmp_path / "raw", 20 * MIB, scattered(20 * MIB, 11))
    device = loop_device(make_raw(tmp_path / "device", size, [(0, b"\xAA" * size)]))
    try:
        result = imgtk("convert", "-n", "-f", "raw", "-O", "vpc", *options(subformat), raw, device, code=code)
        if code == 0:
            assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vpc", raw, device).out
            imgtk("check", device)
        else:
            assert "has" in result.err or "space" in result.err, result
            imgtk_fails("info", "-f", "vpc", device)
    finally:
        execute([tool("losetup"), "-d", device])


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_measure_is_exact(tmp_path, subformat):
    size = 33 * MIB + 7 * SECTOR
    raw = make_raw(tmp_path / "raw", size, scattered(size, 12))
    imgtk("convert", "-O", "vpc", *options(subformat), raw, tmp_path / "a.vhd")
    imgtk("convert", "-S", "0", "-O", "vpc", *options(subformat), raw, tmp_path / "b.vhd")
    told = json.loads(imgtk("measure", "--output=json", "-O", "vpc", *options(subformat), raw).out)
    assert told["required"] == os.path.getsize(tmp_path / "a.vhd")
    full = told["fully-allocated"]
    assert os.path.getsize(tmp_path / "b.vhd") == full


# ---- Recognising ---------------------------------------------------------------

@pytest.mark.parametrize("footer_size", [512, 511])
def test_a_fixed_disk_is_recognised_by_its_footer(tmp_path, footer_size):
    image = build_vhd.build_fixed(tmp_path / "a.img", 3 * MIB, scattered(3 * MIB), footer_size=footer_size)
    info = json.loads(imgtk("info", "--output=json", image).out)
    assert info["format"] == "vpc" and info["virtual-size"] == 3 * MIB
    assert info["format-specific"]["data"]["type"] == "fixed"


def test_the_suffix_and_the_other_name(tmp_path):
    raw = make_raw(tmp_path / "a.raw", MIB)
    imgtk("convert", raw, tmp_path / "b.vhd")
    imgtk("convert", "-O", "vhd", raw, tmp_path / "c")
    for name in ("b.vhd", "c"):
        assert json.loads(imgtk("info", "--output=json", tmp_path / name).out)["format"] == "vpc"


def test_a_fixed_disk_that_holds_another_image_is_ambiguous(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "inner", MIB)
    inner = (tmp_path / "inner").read_bytes()
    image = build_vhd.build_fixed(tmp_path / "a.vhd", 3 * MIB, [(0, inner)])
    imgtk_fails("info", image, match="ambiguous")
    assert virtual_size(image, imgtk, "-f", "vpc") == 3 * MIB


def test_a_fixed_disk_that_holds_a_vhd_is_refused(tmp_path):
    build_vhd.build(tmp_path / "inner", 4 * MIB, [(0, b"x" * SECTOR)])
    image = build_vhd.build_fixed(tmp_path / "a.vhd", 3 * MIB, [(0, (tmp_path / "inner").read_bytes()[:2 * MIB])])
    imgtk_fails("info", image, match="different disks")


# ---- Bitmaps -------------------------------------------------------------------

@pytest.mark.threads
@pytest.mark.parametrize("block_size", [512, 4 * KIB, 64 * KIB, 512 * KIB, 2 * MIB, 16 * MIB])
@pytest.mark.parametrize("shuffle", [False, True])
def test_unset_sectors_of_a_dynamic_disk_are_zeroes(tmp_path, block_size, shuffle):
    size = 9 * MIB + 3 * SECTOR if block_size > 512 else MIB
    pieces = scattered(size, 7, 8)
    raw = make_raw(tmp_path / "raw", size, pieces)
    image = build_vhd.build(tmp_path / "a.vhd", size, pieces, block_size=block_size, shuffle=shuffle)
    assert_reads_as(image, raw)
    imgtk("check", image)
    # Read in small unaligned pieces too.
    rows = json.loads(imgtk("map", "--output=json", image).out)
    assert sum(row["length"] for row in rows) == size
    with open(raw, "rb") as plain, open(image, "rb") as file:
        for row in rows:
            plain.seek(row["start"])
            data = plain.read(row["length"])
            if row["data"]:
                file.seek(row["offset"])
                assert file.read(row["length"]) == data
            else:
                assert not data.strip(b"\0")


def test_intervals_are_the_blocks_of_the_table(tmp_path):
    image = build_vhd.build(tmp_path / "a.vhd", 20 * MIB, [(at * MIB, b"x" * SECTOR) for at in (0, 2, 17)])
    out = json.loads(imgtk("map", "--output=intervals", image).out)
    assert out == {"virtual_size": 20 * MIB, "cluster_bits": 21, "data_clusters": [[0, 1], [8, 8]]}


# ---- Differencing --------------------------------------------------------------

BASE, CHILD = uuids.UUID(int=0x11), uuids.UUID(int=0x22)


def chain(folder, parents, *, size=9 * MIB, parent_name="", parent_uuid=BASE, base_name="base.vhd", **fields):
    """A base and a child over it, and the raw file that they make together."""
    below, above = scattered(size, 8), scattered(size, 9, 10)
    raw = make_raw(folder / "raw", size, below + above)
    build_vhd.build(folder / base_name, size, below, uuid=BASE)
    child = build_vhd.build(folder / "child.vhd", size, above, kind=DIFFERENCING, uuid=CHILD, parent_uuid=parent_uuid,
                            parent_name=parent_name, parents=parents, **fields)
    return child, raw


@pytest.mark.parametrize("parents, parent_name", [
    ([(b"W2ru", ".\\base.vhd")], ""),
    ([(b"W2ku", "base.vhd"), (b"W2ru", ".\\sub\\..\\base.vhd")], "nowhere"),
    ([(b"W2ku", "C:\\vm\\gone.vhd"), (b"W2ru", "base.vhd")], ""),
    ([(b"W2ru", "gone.vhd"), (b"W2ku", "base.vhd")], ""),
    ([(b"W2ru", "gone.vhd"), (b"MacX", "file://localhost{folder}/ba%73e.vhd")], ""),
    ([], "base.vhd"),
    ([(b"W2ru", ".\\gone.vhd")], "base.vhd"),
])
def test_the_parent_is_found(tmp_path, parents, parent_name):
    (tmp_path / "sub").mkdir()
    parents = [(platform, name.replace("{folder}", str(tmp_path))) for platform, name in parents]
    child, raw = chain(tmp_path, parents, parent_name=parent_name)
    assert_reads_as(child, raw)


@pytest.mark.threads
def test_the_parent_is_found_by_a_name_that_is_not_ascii(tmp_path):
    child, raw = chain(tmp_path, [(b"W2ru", ".\\b\u00e4se \U0001f600.vhd")], base_name="b\u00e4se \U0001f600.vhd")
    assert_reads_as(child, raw)


def test_another_parent_is_refused(tmp_path):
    child, _ = chain(tmp_path, [(b"W2ru", "base.vhd")], parent_uuid=uuids.UUID(int=0x33))
    imgtk_fails("convert", "-O", "raw", child, tmp_path / "out")
    assert not os.path.exists(tmp_path / "out")


def test_a_parent_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    child, raw = chain(tmp_path / "inner", [(b"W2ru", "..\\base.vhd")])
    os.rename(tmp_path / "inner/base.vhd", tmp_path / "base.vhd")
    imgtk_fails("convert", "-O", "raw", child, tmp_path / "out")
    imgtk("convert", "--allow-dir", tmp_path, "-O", "raw", child, tmp_path / "out")
    assert_same_bytes(tmp_path / "out", raw)


def test_a_differencing_disk_without_names_is_refused_for_reading_alone(tmp_path):
    child, _ = chain(tmp_path, [])
    imgtk_fails("convert", "-O", "raw", child, tmp_path / "out", match="does not name its parent")
    info = json.loads(imgtk("info", "--output=json", child).out)["format-specific"]["data"]
    assert info["type"] == "differencing" and info["parent-uuid"] == str(BASE) and info["uuid"] == str(CHILD)


def test_a_differencing_disk_tells_its_parent(tmp_path):
    child, _ = chain(tmp_path, [(b"W2ru", ".\\base.vhd")], parent_name="base.vhd")
    info = json.loads(imgtk("info", "--output=json", child).out)
    assert info["format-specific"]["data"]["parent-name"] == "base.vhd"
    assert info["backing-filename"] == "base.vhd"


# ---- Damage --------------------------------------------------------------------

def damaged(tmp_path, **fields):
    return build_vhd.build(tmp_path / "a.vhd", 9 * MIB, [(0, b"a" * SECTOR), (5 * MIB, b"b" * SECTOR)], **fields)


def assert_refused(image, match):
    imgtk_fails("map", "-f", "vpc", image, match=match, memory=256 * MIB, timeout=60)


def findings(image, **options):
    """What check tells about a corrupt image."""
    result = imgtk("check", image, code=2, **options)
    return result.out + result.err


def test_a_damaged_front_is_recovered_from_the_end(tmp_path):
    raw = make_raw(tmp_path / "raw", 9 * MIB, [(0, b"a" * SECTOR), (5 * MIB, b"b" * SECTOR)])
    for front in (bytes(SECTOR), b"conectix" + bytes(504), build_vhd.footer(DYNAMIC, 9 * MIB)[:511] + b"\1"):
        image = damaged(tmp_path, front=front)
        info = json.loads(imgtk("info", "--output=json", image).out)
        assert info["format"] == "vpc" and info["format-specific"]["data"]["recovered-footer"] is True
        assert_reads_as(image, raw)
        assert "front is damaged" in findings(image)


def test_a_missing_end_is_found_by_check(tmp_path):
    image = damaged(tmp_path, end=b"")
    assert "recovered-footer" not in imgtk("info", "--output=json", image).out
    assert "at the end" in findings(image)


def test_footers_that_contradict_each_other(tmp_path):
    assert_refused(damaged(tmp_path, end=build_vhd.footer(DYNAMIC, 8 * MIB, uuid=CHILD)), "different disks")


@pytest.mark.parametrize("fields, match", [
    (dict(front=bytes(SECTOR), end=bytes(SECTOR)), "no VHD footer at either end"),
    (dict(front=bytes(SECTOR), end=b"conectix" + bytes(504)), "checksum of the footer"),
    (dict(end=b"", front=build_vhd.footer(DYNAMIC, 9 * MIB, data_offset=1 << 40)), "dynamic disk header at"),
    (dict(end=b"", front=build_vhd.footer(DYNAMIC, 9 * MIB, data_offset=1536)), "no dynamic disk header"),
    (dict(end=b"", front=build_vhd.footer(DYNAMIC, 9 * MIB, version=0x20000)), "version 2.0"),
    (dict(end=b"", front=build_vhd.footer(5, 9 * MIB)), "disk type 5"),
    (dict(end=b"", front=build_vhd.footer(FIXED, 9 * MIB)), "truncated"),
    (dict(end=b"", front=build_vhd.footer(DYNAMIC, (1 << 64) - 512)), "2040 GiB"),
    (dict(end=b"", front=build_vhd.footer(DYNAMIC, 11 * MIB)), "block table has 5 entries"),
    (dict(entries=2), "block table has 2 entries"),
    (dict(table={0: 1 << 30}), "block 0 at sector 1073741824 reaches to"),
    (dict(table={4: 0xFFFFFFFE}), "block 4 at sector 4294967294"),
    (dict(table={1: 0}), "block 1 at sector 0 lies over"),
    (dict(table={1: 1}), "block 1 at sector 1 lies over"),
    (dict(table={1: 3}), "block 1 at sector 3 lies over"),
    (dict(table={1: 4}), "share bytes"),
    (dict(table={1: 5}), "share bytes"),
])
def test_damage_is_refused(tmp_path, fields, match):
    image = damaged(tmp_path, **fields)
    assert_refused(image, match)
    imgtk_fails("convert", "-f", "vpc", "-O", "raw", image, tmp_path / "out", match=match, memory=256 * MIB)
    assert not os.path.exists(tmp_path / "out")


def test_check_tells_every_fault(tmp_path):
    image = damaged(tmp_path, table={1: 4, 3: 1 << 30, 4: 0})
    out = findings(image)
    assert "share bytes" in out and "block 3" in out and "block 4" in out
    report = json.loads(imgtk("check", "--output=json", image, code=2).out)
    assert report["corruptions"] == 3 and report["total-clusters"] == 5


@pytest.mark.slow
def test_a_huge_block_table_is_bounded_by_the_file(tmp_path):
    image = tmp_path / "a.vhd"
    size = 2040 * GIB
    good = build_vhd.footer(DYNAMIC, size)
    # Blocks of a sector: a table of 16 GiB, in a sparse file that has it.
    with open(image, "wb") as file:
        file.write(good + build_vhd.header(0xFFFFFFFF, block_size=SECTOR))
        file.truncate(20 * GIB)
        file.seek(20 * GIB)
        file.write(good)
    assert_refused(image, "at most 4194304")
    # A table of 16 MiB full of entries that are all the same.
    with open(image, "wb") as file:
        file.write(good + build_vhd.header(4194304, block_size=512 * KIB))
        file.write(struct.pack(">I", 0x10000) * 4194304)
        file.truncate(64 * MIB)
        file.seek(64 * MIB)
        file.write(good)
    assert_refused(image, "share bytes")
    assert "more faults" in findings(image, memory=256 * MIB, timeout=60)


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 513, 1024, 1535, 1536, 1600, 2048, 3000, 2 * MIB, 4 * MIB])
def test_truncated(tmp_path, cut):
    image = damaged(tmp_path)
    os.truncate(image, cut)
    imgtk_fails("map", "-f", "vpc", image)
    imgtk_fails("convert", "-f", "vpc", "-O", "raw", image, tmp_path / "out")


def test_a_fixed_disk_that_is_cut_in_front_of_its_footer(tmp_path):
    image = build_vhd.build_fixed(tmp_path / "a.vhd", 3 * MIB)
    data = image.read_bytes()
    image.write_bytes(data[:MIB] + data[-SECTOR:])
    assert_refused(image, "its footer begins at byte 1048576")


@pytest.mark.parametrize("locator, match", [
    ((b"W2ru", 9000, 1536), "at most 8192"),
    ((b"W2ru", 100, 1 << 62), "reaches beyond"),
])
def test_bad_locators_are_refused(tmp_path, locator, match):
    good = build_vhd.footer(DIFFERENCING, 2 * MIB)
    header = build_vhd.header(1, parent_uuid=BASE, locators=[locator])
    (tmp_path / "a.vhd").write_bytes(good + header + b"\xff" * SECTOR + good)
    assert_refused(tmp_path / "a.vhd", match)


def test_malformed_names_are_passed_over(tmp_path):
    child, raw = chain(tmp_path, [(b"W2ru", "gone.vhd"), (b"W2ku", "base.vhd")])
    data = bytearray(child.read_bytes())
    at = data.index("gone".encode("utf-16-le"))
    data[at:at + 2] = b"\x00\xdc"
    child.write_bytes(data)
    assert_reads_as(child, raw)


def test_random_damage_never_crashes(tmp_path):
    """Headers and table with random bytes changed and the checksums made good again."""
    good = damaged(tmp_path).read_bytes()
    rng = random.Random(10)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            start, end = rng.choice([(0, 85), (512, 552), (576 + 512, 1536), (1536, 1556)])
            data[rng.randrange(start, end)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        data[:512] = build_vhd.seal(data[:512], 64)
        data[512:1536] = build_vhd.seal(data[512:1536], 36)
        (tmp_path / "b.vhd").write_bytes(data[:-SECTOR])
        result = imgtk("check", "-f", "vpc", tmp_path / "b.vhd", code=None, memory=256 * MIB, timeout=20)
        assert result.code in (0, 1, 2), result
        result = imgtk("convert", "-f", "vpc", "-O", "raw", tmp_path / "b.vhd", "null:", code=None, timeout=20)
        assert result.code in (0, 1), result

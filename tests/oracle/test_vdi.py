"""VDI: qemu-img writes and imgtk reads, imgtk writes and qemu-img reads; what qemu-img cannot make is built here."""
import json
import os
import random
import struct
import subprocess
import uuid as uuids

import pytest

import build_vdi
from build_vdi import DIFFERENCING, DYNAMIC, FREE, STATIC, ZERO
from imgtk_test import (GIB, IMGTK, KIB, MIB, TIB, allocated, assert_same_bytes, digest, environment, imgtk,
                        imgtk_fails, make_raw, qemu_img, qemu_io)

SECTOR = 512
SUBFORMATS = ["", "static=on"]
SIZES = [SECTOR, 4 * KIB, 1 * MIB, 1 * MIB + SECTOR, 33 * MIB + 7 * SECTOR, 100 * MIB]
LARGE = [127 * GIB + SECTOR, 2 * TIB - SECTOR, 2 * TIB, 5 * TIB]


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


def virtual_size(path, program=imgtk):
    return json.loads(program("info", "-f", "vdi", "--output=json", path).out)["virtual-size"]


def specific(path):
    return json.loads(imgtk("info", "-f", "vdi", "--output=json", path).out)["format-specific"]["data"]


def assert_reads_as(image, raw, *extra):
    imgtk("convert", *(extra or ["-f", "vdi"]), "-O", "raw", image, f"{raw}.read")
    assert_same_bytes(f"{raw}.read", raw)


def without_compressed(rows):
    return [{key: value for key, value in row.items() if key != "compressed"} for row in rows]


def assert_maps_agree(image):
    ours = json.loads(imgtk("map", "--output=json", image).out)
    theirs = json.loads(qemu_img("map", "-f", "vdi", "--output=json", image).out)
    assert without_compressed(ours) == without_compressed(theirs)


# ---- qemu-img's images --------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_reads_what_qemu_writes(tmp_path, subformat, size):
    raw = make_raw(tmp_path / "raw", size, scattered(size))
    qemu_img("convert", "-f", "raw", "-O", "vdi", *options(subformat), raw, tmp_path / "a.vdi")
    assert_reads_as(tmp_path / "a.vdi", raw)
    assert_maps_agree(tmp_path / "a.vdi")
    imgtk("check", tmp_path / "a.vdi")
    info = json.loads(imgtk("info", "--output=json", tmp_path / "a.vdi").out)
    assert info["format"] == "vdi" and info["cluster-size"] == MIB
    assert info["format-specific"]["data"]["type"] == ("static" if subformat else "dynamic")


@pytest.mark.parametrize("size", LARGE)
def test_reads_large_ones(tmp_path, size):
    qemu_img("create", "-q", "-f", "vdi", tmp_path / "a.vdi", size)
    qemu_io(tmp_path / "a.vdi", f"write -P 7 {size - SECTOR} 512", "write -P 8 1M 3M", fmt="vdi")
    assert virtual_size(tmp_path / "a.vdi") == size
    assert_maps_agree(tmp_path / "a.vdi")


def test_blocks_written_out_of_order(tmp_path):
    qemu_img("create", "-q", "-f", "vdi", tmp_path / "a.vdi", 20 * MIB)
    qemu_io(tmp_path / "a.vdi", "write -P 1 15M 2M", "write -P 2 3M 1M", "write -P 3 4M 512", "write -P 4 0 1M",
            fmt="vdi")
    qemu_img("convert", "-f", "vdi", "-O", "raw", tmp_path / "a.vdi", tmp_path / "raw")
    assert_reads_as(tmp_path / "a.vdi", tmp_path / "raw")
    assert_maps_agree(tmp_path / "a.vdi")
    out = json.loads(imgtk("map", "--output=intervals", tmp_path / "a.vdi").out)
    assert out["data_clusters"] == [[0, 0], [3, 4], [15, 16]]


# ---- Our images ----------------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", [*SUBFORMATS, "preallocation=metadata"])
def test_qemu_reads_what_we_write(tmp_path, subformat, size):
    raw = make_raw(tmp_path / "raw", size, scattered(size, 1))
    imgtk("convert", "-f", "raw", "-O", "vdi", *options(subformat), raw, tmp_path / "a.vdi")
    assert virtual_size(tmp_path / "a.vdi", qemu_img) == size
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vdi", raw, tmp_path / "a.vdi").out
    assert_reads_as(tmp_path / "a.vdi", raw)
    assert_maps_agree(tmp_path / "a.vdi")
    for program in (imgtk, qemu_img):
        program("check", "-f", "vdi", tmp_path / "a.vdi")
    blocks = -(-size // MIB)
    if subformat:
        assert os.path.getsize(tmp_path / "a.vdi") == 4096 + blocks * MIB
        assert specific(tmp_path / "a.vdi")["type"] == "static"


@pytest.mark.parametrize("size", [0, 1, 511, 513, MIB + 1, 2 * TIB])
def test_creates_empty_disks_of_qemus_sizes(tmp_path, size):
    imgtk("create", "-q", "-f", "vdi", tmp_path / "a.vdi", size)
    qemu_img("create", "-q", "-f", "vdi", tmp_path / "b.vdi", size)
    assert virtual_size(tmp_path / "a.vdi", qemu_img) == virtual_size(tmp_path / "b.vdi", qemu_img)
    for program in (imgtk, qemu_img):
        program("check", "-f", "vdi", tmp_path / "a.vdi")


def test_the_largest_disk_is_qemus(tmp_path):
    imgtk_fails("create", "-q", "-f", "vdi", tmp_path / "a.vdi", 0x1fffff8000000 + 1, match="largest VDI")
    assert not os.path.exists(tmp_path / "a.vdi")


def test_zeroes_take_no_space_and_full_allocation_takes_all(tmp_path):
    raw = make_raw(tmp_path / "raw", 64 * MIB, [(MIB, b"x" * 4096), (33 * MIB, b"y" * 4096)])
    imgtk("convert", "-O", "vdi", raw, tmp_path / "a.vdi")
    assert os.path.getsize(tmp_path / "a.vdi") == 4096 + 2 * MIB
    assert allocated(tmp_path / "a.vdi") < 100 * KIB
    imgtk("convert", "-S", "0", "-O", "vdi", raw, tmp_path / "b.vdi")
    assert allocated(tmp_path / "b.vdi") > 64 * MIB
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vdi", raw, tmp_path / "b.vdi").out


@pytest.mark.threads
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_the_same_input_makes_the_same_file(tmp_path, subformat):
    raw = make_raw(tmp_path / "raw", 40 * MIB, scattered(40 * MIB, 4))
    uuid = "12345678-9abc-def0-1234-56789abcdef0"
    digests = set()
    for workers in (1, 2, 7):
        imgtk("convert", "-m", workers, "-O", "vdi", *options(subformat), "-o", f"uuid={uuid}", raw, tmp_path / "a.vdi")
        digests.add(digest(tmp_path / "a.vdi"))
    assert len(digests) == 1
    assert specific(tmp_path / "a.vdi")["uuid"] == uuid
    imgtk_fails("convert", "-O", "vdi", "-o", "uuid=x", raw, tmp_path / "b.vdi", match="not a UUID")


def test_the_source_date_alone_makes_it_reproducible(tmp_path):
    raw = make_raw(tmp_path / "raw", 5 * MIB, scattered(5 * MIB, 4))
    digests = []
    for date in (1700000000, 1700000000, 1700000001, 0, None):
        imgtk("convert", "-O", "vdi", raw, tmp_path / "a", env=environment(SOURCE_DATE_EPOCH=date))
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
    with open(tmp_path / "a.vdi", "wb") as out:
        pipe = subprocess.Popen([IMGTK, "convert", "-O", "vdi", *options(subformat), raw, "-"], stdout=subprocess.PIPE,
                                env=environment())
        subprocess.run(["cat"], stdin=pipe.stdout, stdout=out, check=True, timeout=60)
        pipe.stdout.close()
        assert pipe.wait(timeout=60) == 0
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vdi", raw, tmp_path / "a.vdi").out
    assert_reads_as(tmp_path / "a.vdi", raw)
    for program in (imgtk, qemu_img):
        program("check", "-f", "vdi", tmp_path / "a.vdi")


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("zero", [[], ["--target-is-zero"]])
def test_overwrites_an_existing_file(tmp_path, subformat, zero):
    raw = make_raw(tmp_path / "raw", 7 * MIB, scattered(7 * MIB, 6))
    old = make_raw(tmp_path / "a.vdi", 70 * MIB, [] if zero else [(0, b"\xAA" * 70 * MIB)])
    imgtk("convert", "-n", *zero, "-O", "vdi", *options(subformat), raw, old)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vdi", raw, old).out
    assert_reads_as(old, raw)
    imgtk("check", old)


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_measure_is_exact(tmp_path, subformat):
    size = 33 * MIB + 7 * SECTOR
    raw = make_raw(tmp_path / "raw", size, scattered(size, 12))
    imgtk("convert", "-O", "vdi", *options(subformat), raw, tmp_path / "a.vdi")
    imgtk("convert", "-S", "0", "-O", "vdi", *options(subformat), raw, tmp_path / "b.vdi")
    told = json.loads(imgtk("measure", "--output=json", "-O", "vdi", *options(subformat), raw).out)
    assert told["required"] == os.path.getsize(tmp_path / "a.vdi")
    assert told["fully-allocated"] == os.path.getsize(tmp_path / "b.vdi")


# ---- What qemu-img does not make ------------------------------------------------

def content(seed, size=MIB):
    return random.Random(seed).randbytes(size)


def raw_of(folder, size, blocks, block_size=MIB):
    return make_raw(folder / "raw", size, [(block * block_size, data[:size - block * block_size])
                                           for block, data in blocks.items()])


@pytest.mark.parametrize("fields", [
    dict(version=0x10000),
    dict(version=1),
    dict(block_extra=512),
    dict(block_size=64 * KIB),
    dict(block_size=4 * MIB, block_extra=4096),
    dict(data_offset=2 * MIB, table_offset=MIB),
    dict(kind=STATIC, order=[5, 4, 3, 2, 1, 0]),
])
def test_other_layouts(tmp_path, fields):
    block_size = fields.get("block_size", MIB)
    size = 6 * block_size - 3 * SECTOR
    blocks = {number: content(number, block_size) for number in (range(6) if "order" in fields else (1, 2, 5, 0))}
    image = build_vdi.build(tmp_path / "a.vdi", size, blocks, **fields)
    assert_reads_as(image, raw_of(tmp_path, size, blocks, block_size))
    imgtk("check", image)


def test_odd_lengths_are_whole_sectors_as_with_qemu(tmp_path):
    image = build_vdi.build(tmp_path / "a.vdi", 3 * MIB - 100, {2: content(1)})
    assert virtual_size(image) == 3 * MIB == virtual_size(image, qemu_img)
    qemu_img("convert", "-f", "vdi", "-O", "raw", image, tmp_path / "raw")
    assert_reads_as(image, tmp_path / "raw")


def test_zero_blocks_are_zeroes(tmp_path):
    image = build_vdi.build(tmp_path / "a.vdi", 4 * MIB, {0: content(1)}, table={2: ZERO})
    assert_reads_as(image, raw_of(tmp_path, 4 * MIB, {0: content(1)}))
    assert_maps_agree(image)


BASE, CHILD = uuids.UUID("00112233-4455-6677-8899-aabbccddeeff"), uuids.UUID(int=0x22)


def chain(folder, link=BASE):
    build_vdi.build(folder / "base.vdi", 6 * MIB, {0: content(1), 2: content(2), 4: content(3)}, uuid=BASE)
    child = build_vdi.build(folder / "child.vdi", 6 * MIB, {2: content(4), 5: content(5)}, kind=DIFFERENCING,
                            uuid=CHILD, link=link, table={4: ZERO})
    return child, raw_of(folder, 6 * MIB, {0: content(1), 2: content(4), 5: content(5)})


@pytest.mark.threads
def test_differencing(tmp_path):
    child, raw = chain(tmp_path)
    node = f"driver=vdi,file.filename={child},backing=base.vdi"
    assert_reads_as(node, raw, "--image-opts")
    rows = json.loads(imgtk("map", "--output=json", "--image-opts", node).out)
    assert [(row["start"] // MIB, row["depth"], row["data"]) for row in rows] == [
        (0, 1, True), (1, 1, False), (2, 0, True), (3, 1, False), (4, 0, False), (5, 0, True)]
    told = specific(child)
    assert told["type"] == "differencing" and told["uuid"] == str(CHILD) and told["parent-uuid"] == str(BASE)


def test_differencing_needs_its_parent(tmp_path):
    child, _ = chain(tmp_path)
    imgtk_fails("convert", "-O", "raw", child, tmp_path / "out", match=str(BASE))
    assert not os.path.exists(tmp_path / "out")
    other, _ = chain(tmp_path, link=uuids.UUID(int=0x33))
    imgtk_fails("convert", "--image-opts", "-O", "raw", f"driver=vdi,file.filename={other},backing=base.vdi",
                tmp_path / "out", match="not the parent")
    imgtk_fails("map", "--image-opts", f"driver=vdi,file.filename={tmp_path}/base.vdi,backing=child.vdi",
                match="only a differencing image")


# ---- Damage ----------------------------------------------------------------------

def damaged(tmp_path, **fields):
    return build_vdi.build(tmp_path / "a.vdi", 6 * MIB, {1: content(1), 3: content(2)}, **fields)


def assert_refused(image, match):
    imgtk_fails("map", "-f", "vdi", image, match=match, memory=256 * MIB, timeout=60)


@pytest.mark.parametrize("fields, match", [
    (dict(version=0x20000), "version 2.0"),
    (dict(kind=3), "undo"),
    (dict(kind=77), "type 77"),
    (dict(block_size=MIB + 1, count=6), "block size 1048577"),
    (dict(block_extra=1 << 24), "extra bytes"),
    (dict(count=5, table={}), "hold only"),
    (dict(table={0: 6}), "place 6 of 6"),
    (dict(table={0: 0xFFFFFFFD}), "place 4294967293"),
    (dict(table={0: 5}), "beyond the file"),
    (dict(table={0: 1}), "both at place 1"),
    (dict(data_offset=512), "lie over the block table"),
    (dict(table_offset=0), "lie over the block table"),
])
def test_damage_is_refused(tmp_path, fields, match):
    if fields.get("block_extra", 0) > MIB:
        image = damaged(tmp_path)
        with open(image, "r+b") as file:
            file.seek(0x17c)
            file.write(struct.pack("<I", fields["block_extra"]))
    elif "data_offset" in fields or "table_offset" in fields:
        image = damaged(tmp_path)
        with open(image, "r+b") as file:
            file.seek(0x154 if "table_offset" in fields else 0x158)
            file.write(struct.pack("<I", fields.get("table_offset", fields.get("data_offset"))))
    else:
        image = damaged(tmp_path, **fields)
    assert_refused(image, match)
    imgtk_fails("convert", "-f", "vdi", "-O", "raw", image, tmp_path / "out", match=match, memory=256 * MIB)
    assert not os.path.exists(tmp_path / "out")


def test_check_tells_every_fault(tmp_path):
    image = damaged(tmp_path, table={0: 1, 2: 77, 5: 4})
    result = imgtk("check", image, code=2)
    for word in ("both at place 1", "place 77", "beyond the file", "counts 2 allocated blocks, the block table 5"):
        assert word in result.out + result.err
    report = json.loads(imgtk("check", "--output=json", image, code=2).out)
    assert report["corruptions"] == 4
    assert qemu_img("check", image, code=None).code == 2


def test_a_huge_block_table_is_bounded_by_the_file(tmp_path):
    image = tmp_path / "a.vdi"
    count = 0x1fffff80
    image.write_bytes(build_vdi.header(DYNAMIC, count * MIB, count, 0, data_offset=0xFFFFF000))
    assert_refused(image, "block table of")
    os.truncate(image, 3 * GIB)  # a hole is a table of zeroes: every block at the same place
    assert_refused(image, "beyond the file|both at place 0")
    imgtk_fails("map", "-f", "vdi", image, memory=256 * MIB)


@pytest.mark.parametrize("cut", [0, 1, 71, 72, 400, 511, 512, 530, 4096, MIB, 2 * MIB])
def test_truncated(tmp_path, cut):
    image = damaged(tmp_path)
    os.truncate(image, cut)
    imgtk_fails("map", "-f", "vdi", image)
    imgtk_fails("convert", "-f", "vdi", "-O", "raw", image, tmp_path / "out")


def test_random_damage_never_crashes(tmp_path):
    good = damaged(tmp_path).read_bytes()
    rng = random.Random(10)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            start, end = rng.choice([(0x44, 0x54), (0x154, 0x1c8), (512, 536)])
            data[rng.randrange(start, end)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        (tmp_path / "b.vdi").write_bytes(data)
        result = imgtk("check", "-f", "vdi", tmp_path / "b.vdi", code=None, memory=256 * MIB, timeout=60)
        assert result.code in (0, 1, 2), result
        result = imgtk("map", "-f", "vdi", tmp_path / "b.vdi", code=None, memory=256 * MIB, timeout=60)
        assert result.code in (0, 1), result
        if result.code == 0 and virtual_size(tmp_path / "b.vdi") > GIB:  # true to its header, but long to read
            continue
        result = imgtk("convert", "-f", "vdi", "-O", "raw", tmp_path / "b.vdi", "null:", code=None, timeout=60)
        assert result.code in (0, 1), result

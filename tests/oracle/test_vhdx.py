"""VHDX against qemu-img, and against images that only a builder makes: differencing disks, dirty logs, broken files."""
import json
import os
import random
import shutil
import struct
import uuid

import pytest

import vhdx_images as vhdx
from imgtk_test import (GIB, KIB, MIB, TIB, allocated, assert_same_bytes, digest, environment, execute, imgtk,
                        imgtk_fails, make_raw, missing, qemu_img, qemu_io, tool)

CREATE = ["subformat=dynamic", "subformat=dynamic,block_size=1M", "subformat=dynamic,block_size=256M,log_size=3M",
          "subformat=fixed", "subformat=fixed,block_size=1M", "subformat=dynamic,block_state_zero=off"]
SIZES = [512, 3 * 512, MIB - 512, MIB, MIB + 512, 8 * MIB, 33 * MIB + 4608]


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def raw_of(path, size, seed=1):
    """Data at the beginning, at the end and around block boundaries, wherever the size leaves room for it."""
    pieces = [(at, noise(min(length, size - at), seed + at)) for at, length in
              [(0, 512), (MIB - 512, 1024), (5 * MIB, 3 * MIB + 512), (size - 512, 512)] if 0 <= at < size]
    return make_raw(path, size, pieces)


def info(path):
    return json.loads(imgtk("info", "--output=json", path).out)


def specific(path):
    return info(path)["format-specific"]["data"]


def to_raw(path, raw, *options):
    imgtk("convert", "-f", "vhdx", "-O", "raw", *options, path, raw)
    return raw


def refused(path, match, tmp_path, *options):
    """convert and info fail, quickly, with one line and without a result."""
    imgtk_fails("convert", "-f", "vhdx", "-O", "raw", *options, path, tmp_path / "refused.raw", match=match,
                memory=512 * MIB, timeout=20)
    assert not (tmp_path / "refused.raw").exists()


# ---- qemu-img's images, and imgtk's for qemu-img -----------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", CREATE)
def test_reads_what_qemu_img_writes(tmp_path, options, size):
    raw = raw_of(tmp_path / "a.raw", size)
    qemu_img("convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, tmp_path / "q.vhdx")
    before = digest(tmp_path / "q.vhdx")
    assert_same_bytes(raw, to_raw(tmp_path / "q.vhdx", tmp_path / "b.raw"))
    assert digest(tmp_path / "q.vhdx") == before
    assert imgtk("check", tmp_path / "q.vhdx").code == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", CREATE)
def test_qemu_img_reads_what_it_writes(tmp_path, options, size):
    raw = raw_of(tmp_path / "a.raw", size)
    image = tmp_path / "a.vhdx"
    imgtk("convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, image)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vhdx", raw, image).out
    qemu_img("check", "-f", "vhdx", image)
    assert json.loads(qemu_img("info", "--output=json", image).out)["virtual-size"] == size
    assert_same_bytes(raw, to_raw(image, tmp_path / "b.raw"))
    assert imgtk("check", image).code == 0


@pytest.mark.threads
@pytest.mark.parametrize("workers", [1, 4])
def test_the_file_does_not_depend_on_workers(tmp_path, workers):
    raw = raw_of(tmp_path / "a.raw", 40 * MIB)
    options = "block_size=1M,uuid=01234567-89ab-cdef-0123-456789abcdef"
    imgtk("convert", "-m", 2, "-O", "vhdx", "-o", options, raw, tmp_path / "two.vhdx")
    imgtk("convert", "-m", workers, "-O", "vhdx", "-o", options, raw, tmp_path / "some.vhdx")
    assert_same_bytes(tmp_path / "two.vhdx", tmp_path / "some.vhdx")


@pytest.mark.parametrize("options", CREATE)
def test_streams_to_a_pipe(tmp_path, options):
    raw = raw_of(tmp_path / "a.raw", 33 * MIB + 4608)
    result = imgtk("convert", "-O", "vhdx", "-o", options, raw, "-")
    (tmp_path / "a.vhdx").write_bytes(result.raw)
    qemu_img("check", "-f", "vhdx", tmp_path / "a.vhdx")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vhdx", raw, tmp_path / "a.vhdx").out
    assert imgtk("check", tmp_path / "a.vhdx").code == 0


@pytest.mark.parametrize("options", CREATE)
def test_writes_over_an_old_file(tmp_path, options):
    """-n onto a file full of other bytes: none of them shows."""
    raw = raw_of(tmp_path / "a.raw", 9 * MIB)
    make_raw(tmp_path / "a.vhdx", 16 * MIB, [(0, b"\xa5" * 16 * MIB)])
    imgtk("convert", "-n", "-O", "vhdx", "-o", options, raw, tmp_path / "a.vhdx")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vhdx", raw, tmp_path / "a.vhdx").out
    qemu_img("check", "-f", "vhdx", tmp_path / "a.vhdx")


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed"])
def test_create_makes_an_empty_image(tmp_path, options):
    image = tmp_path / "a.vhdx"
    imgtk("create", "-q", "-f", "vhdx", "-o", options, image, "100M")
    qemu_img("check", "-f", "vhdx", image)
    raw = make_raw(tmp_path / "z.raw", 100 * MIB)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vhdx", raw, image).out
    qemu_io(image, "write -P 7 50M 64k", fmt="vhdx")
    assert_same_bytes(make_raw(tmp_path / "w.raw", 100 * MIB, [(50 * MIB, b"\x07" * (64 * KIB))]),
                      to_raw(image, tmp_path / "b.raw"))


def test_everything_written_with_sparse_0(tmp_path):
    raw = raw_of(tmp_path / "a.raw", 9 * MIB)
    imgtk("convert", "-S", "0", "-O", "vhdx", "-o", "block_size=1M", raw, tmp_path / "a.vhdx")
    assert allocated(tmp_path / "a.vhdx") >= 9 * MIB
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vhdx", raw, tmp_path / "a.vhdx").out


@pytest.mark.parametrize("size", [127 * GIB, 2 * TIB, 12 * TIB])
def test_huge_sparse_disks(tmp_path, size):
    pieces = [(0, noise(512)), (size // 2 + 512, noise(4096, 2)), (size - 512, noise(512, 3))]
    try:
        make_raw(tmp_path / "a.raw", size, pieces)
    except OSError:
        missing("the file system holds no file of this size")
    imgtk("convert", "-f", "raw", "-O", "vhdx", tmp_path / "a.raw", tmp_path / "a.vhdx", memory=512 * MIB)
    assert allocated(tmp_path / "a.vhdx") < 64 * MIB
    assert info(tmp_path / "a.vhdx")["virtual-size"] == size
    qemu_io(tmp_path / "a.vhdx", "read -P 0 512 512", f"read -P 0 {size // 2} 512", fmt="vhdx")
    for at, data in pieces:
        found = [row for row in json.loads(imgtk("map", "--output=json", tmp_path / "a.vhdx").out)
                 if row["data"] and row["start"] <= at < row["start"] + row["length"]]
        assert len(found) == 1
        assert vhdx.read_at(tmp_path / "a.vhdx", found[0]["offset"] + at - found[0]["start"], len(data)) == data


@pytest.mark.parametrize("options", ["subformat=dynamic", "block_size=1M,block_state_zero=off"])
def test_the_largest_disk(tmp_path, options):
    image = tmp_path / "a.vhdx"
    imgtk("create", "-q", "-f", "vhdx", "-o", options, image, 64 * TIB, memory=512 * MIB)
    assert info(image)["virtual-size"] == 64 * TIB
    assert imgtk("check", image, memory=512 * MIB).code == 0
    rows = json.loads(imgtk("map", "--output=json", image, memory=512 * MIB).out)
    assert [(row["start"], row["length"], row["zero"]) for row in rows] == [(0, 64 * TIB, True)]


@pytest.mark.parametrize("size", [127 * GIB, 2 * TIB])
def test_huge_sparse_disks_of_qemu_img(tmp_path, size):
    image = tmp_path / "q.vhdx"
    qemu_img("create", "-q", "-f", "vhdx", image, size)
    qemu_io(image, f"write -P 3 {size - MIB} 64k", f"write -P 4 {size // 2} 4k", fmt="vhdx")
    imgtk("convert", "-O", "qcow2", image, tmp_path / "b.qcow2")
    # Not compare: qemu-img knows no holes in VHDX and would read all of it.
    qemu_io(tmp_path / "b.qcow2", f"read -P 3 {size - MIB} 64k", f"read -P 4 {size // 2} 4k",
            f"read -P 0 {size - MIB + 64 * KIB} 64k", f"read -P 0 {size // 2 + 4096} 4k", "read -P 0 0 1M", fmt="qcow2")
    assert json.loads(qemu_img("info", "--output=json", tmp_path / "b.qcow2").out)["virtual-size"] == size


@pytest.mark.parametrize("options", CREATE)
@pytest.mark.parametrize("size", [512, 8 * MIB, 33 * MIB + 4608])
def test_measure_is_exact(tmp_path, options, size):
    raw = raw_of(tmp_path / "a.raw", size)
    imgtk("convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, tmp_path / "a.vhdx")
    told = json.loads(imgtk("measure", "--output=json", "-f", "raw", "-O", "vhdx", "-o", options, raw).out)
    assert told["required"] == os.path.getsize(tmp_path / "a.vhdx")
    imgtk("convert", "-S", "0", "-O", "vhdx", "-o", options, raw, tmp_path / "full.vhdx")
    assert told["fully-allocated"] == os.path.getsize(tmp_path / "full.vhdx")


def test_info_tells_what_the_image_is(tmp_path):
    disk = "01234567-89ab-cdef-0123-456789abcdef"
    imgtk("create", "-q", "-f", "vhdx", "-o", f"subformat=fixed,block_size=2M,uuid={disk}", tmp_path / "a.vhdx", "5M")
    told = info(tmp_path / "a.vhdx")
    assert told["cluster-size"] == 2 * MIB and told["virtual-size"] == 5 * MIB and told["dirty-flag"] is False
    data = told["format-specific"]["data"]
    assert data["type"] == "fixed" and data["block-size"] == 2 * MIB and data["log"] == "clean"
    assert data["logical-sector-size"] == 512 and data["physical-sector-size"] == 4096
    assert data["disk-id"] == disk and data["creator"].startswith("imgtk ")
    assert data["data-write-guid"] != data["file-write-guid"] and "damaged-header" not in data


def test_uuid_and_epoch_make_reproducible_files(tmp_path):
    raw = raw_of(tmp_path / "a.raw", 9 * MIB)
    for name, options, env in [("u1", "uuid=01234567-89ab-cdef-0123-456789abcdef", {}),
                               ("u2", "uuid=01234567-89ab-cdef-0123-456789abcdef", {}),
                               ("e1", "log_size=1M", {"SOURCE_DATE_EPOCH": 1700000000}),
                               ("e2", "log_size=1M", {"SOURCE_DATE_EPOCH": 1700000000}),
                               ("e3", "log_size=1M", {"SOURCE_DATE_EPOCH": 1700000001}),
                               ("r1", "log_size=1M", {}), ("r2", "log_size=1M", {})]:
        imgtk("convert", "-O", "vhdx", "-o", options, raw, tmp_path / name, env=environment(**env))
    sums = {name: digest(tmp_path / name) for name in ("u1", "u2", "e1", "e2", "e3", "r1", "r2")}
    assert sums["u1"] == sums["u2"] and sums["e1"] == sums["e2"]
    assert len(set(sums.values())) == 5


@pytest.mark.parametrize("options,match", [
    ("block_size=3M", "power of two"), ("block_size=512K", "power of two"), ("block_size=512M", "block_size"),
    ("log_size=1500K", "multiple of 1 MiB"), ("uuid=1234", "UUID"), ("subformat=differencing", "subformat")])
def test_bad_options_are_refused(tmp_path, options, match):
    imgtk_fails("create", "-q", "-f", "vhdx", "-o", options, tmp_path / "a.vhdx", "10M", match=match)
    assert not (tmp_path / "a.vhdx").exists()


def test_more_than_64_tib_is_refused(tmp_path):
    imgtk_fails("create", "-q", "-f", "vhdx", tmp_path / "a.vhdx", 64 * TIB + 512, match="64 TiB")
    assert not (tmp_path / "a.vhdx").exists()


# ---- Differencing disks ------------------------------------------------------


def parent_and_child(tmp_path, size=6 * MIB, sector=512, block_size=MIB, name="base.vhdx"):
    """A parent, a child on it, and the bytes that the child shows."""
    base = vhdx.Image(size, block_size=block_size, sector=sector)
    shown = bytearray(size)
    for block in range(0, min(4, base.block_count)):
        data = noise(min(block_size, size - block * block_size), block + 10)
        base.put(block, data)
        shown[block * block_size:block * block_size + len(data)] = data
    base.write(tmp_path / name)
    child = vhdx.Image(size, block_size=block_size, sector=sector, data_write=uuid.UUID(int=5),
                       parent_pairs=vhdx.parent(".\\" + name))
    return child, shown


def show(shown, at, data):
    shown[at:at + len(data)] = data


@pytest.mark.parametrize("sector", [512, 4096])
def test_differencing_disk(tmp_path, sector):
    child, shown = parent_and_child(tmp_path, sector=sector)
    last = MIB // sector - 1
    sectors = {number: noise(sector, number) for number in (0, 1, 9, 64, last)}
    for block in (1, 5):
        child.put_sectors(block, sectors)
        for number, data in sectors.items():
            show(shown, block * MIB + number * sector, data)
    child.put(2, noise(MIB, 77))
    show(shown, 2 * MIB, noise(MIB, 77))
    child.set_state(3, vhdx.ZERO)
    show(shown, 3 * MIB, bytes(MIB))
    image = child.write(tmp_path / "child.vhdx")
    assert to_raw(image, tmp_path / "b.raw").read_bytes() == shown
    data = specific(image)
    assert data["type"] == "differencing"
    assert data["parent"]["relative-path"] == "./base.vhdx"
    assert data["parent"]["data-write-guid"] == str(vhdx.DATA_WRITE)
    assert imgtk("check", image).code == 0


def test_every_sector_of_a_block_alternates(tmp_path):
    child, shown = parent_and_child(tmp_path)
    for number in range(1, 2048, 2):
        show(shown, number * 512, noise(512, number))
    child.put_sectors(0, {number: noise(512, number) for number in range(1, 2048, 2)})
    image = child.write(tmp_path / "child.vhdx")
    assert to_raw(image, tmp_path / "b.raw").read_bytes() == shown


def test_blocks_in_a_second_chunk(tmp_path):
    """Block size 256 MiB: 16 blocks to a chunk, so block 17's sector bitmap is the second one."""
    size, block_size = 20 * 256 * MIB, 256 * MIB
    vhdx.Image(size, block_size=block_size).write(tmp_path / "base.vhdx")
    child = vhdx.Image(size, block_size=block_size, data_write=uuid.UUID(int=5),
                       parent_pairs=vhdx.parent("base.vhdx"))
    child.put_sectors(15, {7: noise(512, 1)})
    child.put_sectors(17, {0: noise(512, 2), 256 * MIB // 512 - 1: noise(512, 3)})
    image = child.write(tmp_path / "child.vhdx")
    imgtk("convert", "-O", "qcow2", image, tmp_path / "b.qcow2")
    rows = [row for row in json.loads(imgtk("map", "--output=json", image).out) if row["data"]]
    starts = [15 * block_size + 7 * 512, 17 * block_size, 18 * block_size - 512]
    assert [row["start"] for row in rows] == starts
    for row, seed in zip(rows, (1, 2, 3)):
        assert vhdx.read_at(image, row["offset"], 512) == noise(512, seed)


def test_chain_of_three(tmp_path):
    child, shown = parent_and_child(tmp_path)
    child.put_sectors(0, {5: noise(512, 50)})
    show(shown, 5 * 512, noise(512, 50))
    child.write(tmp_path / "middle.vhdx")
    top = vhdx.Image(6 * MIB, parent_pairs=vhdx.parent("middle.vhdx", uuid.UUID(int=5)), data_write=uuid.UUID(int=6))
    top.put_sectors(0, {6: noise(512, 60)})
    show(shown, 6 * 512, noise(512, 60))
    image = top.write(tmp_path / "top.vhdx")
    assert to_raw(image, tmp_path / "b.raw").read_bytes() == shown


def test_parent_in_another_folder_and_second_path(tmp_path):
    """A relative path that leads nowhere, then an absolute one; backslashes, and Windows' prefix."""
    (tmp_path / "sub").mkdir()
    child, shown = parent_and_child(tmp_path / "sub")
    child.parent_pairs = vhdx.parent(".\\nowhere\\base.vhdx", absolute_win32_path="\\\\?\\sub\\base.vhdx")
    image = child.write(tmp_path / "child.vhdx")
    assert to_raw(image, tmp_path / "b.raw").read_bytes() == shown


def test_wrong_parent_is_refused(tmp_path):
    child, _ = parent_and_child(tmp_path)
    child.parent_pairs = vhdx.parent("base.vhdx", uuid.UUID(int=1234))
    refused(child.write(tmp_path / "child.vhdx"), "parent", tmp_path)


def test_either_linkage_names_the_parent(tmp_path):
    child, shown = parent_and_child(tmp_path)
    child.parent_pairs = vhdx.parent("base.vhdx", uuid.UUID(int=1234), parent_linkage2="{%s}" % vhdx.DATA_WRITE)
    image = child.write(tmp_path / "child.vhdx")
    assert to_raw(image, tmp_path / "b.raw").read_bytes() == shown


def test_missing_parent_is_refused_but_the_layer_is_told(tmp_path):
    child, _ = parent_and_child(tmp_path)
    image = child.write(tmp_path / "child.vhdx")
    (tmp_path / "base.vhdx").unlink()
    refused(image, "base.vhdx", tmp_path)
    assert specific(image)["type"] == "differencing"
    assert imgtk("check", image).code == 0


@pytest.mark.parametrize("path", ["\\etc\\passwd", "..\\..\\..\\..\\..\\..\\etc\\passwd", "nbd://127.0.0.1:1/x"])
def test_parent_outside_the_policy_is_refused(tmp_path, path):
    child, _ = parent_and_child(tmp_path)
    child.parent_pairs = vhdx.parent(path)
    refused(child.write(tmp_path / "child.vhdx"), ".", tmp_path)


@pytest.mark.parametrize("pairs,match", [
    ([("relative_path", "base.vhdx")], "no parent_linkage"),
    ([("parent_linkage", "{%s}" % vhdx.DATA_WRITE)], "no path"),
    ([("parent_linkage", "{%s}" % vhdx.DATA_WRITE), ("relative_path", "")], "no path"),
    ([("parent_linkage", "nonsense"), ("relative_path", "base.vhdx")], "not a GUID"),
    (vhdx.parent("base.vhdx") + [("relative_path", "other.vhdx")], "twice")])
def test_bad_parent_locators(tmp_path, pairs, match):
    child, _ = parent_and_child(tmp_path)
    child.parent_pairs = pairs
    refused(child.write(tmp_path / "child.vhdx"), match, tmp_path)


def test_parent_locator_beyond_its_end_or_of_another_type(tmp_path):
    child, _ = parent_and_child(tmp_path)
    good = vhdx.locator(child.parent_pairs)
    image = child.write(tmp_path / "child.vhdx")
    at = vhdx.read_at(image, vhdx.METADATA_OFFSET, 2 * MIB).find(good[:16]) + vhdx.METADATA_OFFSET
    for offset, value, match in [(18, b"\xff\xff", "cannot hold"), (20, b"\xff\xff\xff\xff", "beyond"),
                                 (30, b"\xff\xff", "beyond"), (0, b"\0", "not known")]:
        vhdx.patch(image, at, good)
        vhdx.patch(image, at + offset, value)
        refused(image, match, tmp_path)


def test_libvhdi_sees_the_same(tmp_path):
    """A second reader, of what imgtk writes and of what the builder makes."""
    child, _ = parent_and_child(tmp_path)
    child.write(tmp_path / "child.vhdx")
    for name, options in [("dynamic", "subformat=dynamic"), ("fixed", "subformat=fixed")]:
        imgtk("create", "-q", "-f", "vhdx", "-o", options, tmp_path / f"{name}.vhdx", 6 * MIB)
    for name, kind in [("dynamic", "Dynamic"), ("fixed", "Fixed"), ("child", "Differential")]:
        told = execute([tool("vhdiinfo"), tmp_path / f"{name}.vhdx"]).out
        data = specific(tmp_path / f"{name}.vhdx")
        assert kind in told and f"({6 * MIB} bytes)" in told and data["data-write-guid"] in told
        assert name != "child" or data["parent"]["data-write-guid"] in told


# ---- Dirty logs --------------------------------------------------------------


def dirty_image(tmp_path, where=0, first=7):
    """An image whose BAT entries are in the log only, in three entries from sector `where` on; and what it shows."""
    image = vhdx.Image(4 * MIB)
    image.put(0, noise(MIB, 1))
    path = image.write(tmp_path / "dirty.vhdx")
    offsets = [image.place(MIB), image.place(MIB)]
    with open(path, "r+b") as file:
        file.truncate(image.end)
    vhdx.patch(path, offsets[0], noise(MIB, 2))
    vhdx.patch(path, offsets[1], noise(MIB, 3))
    bat = bytearray(vhdx.read_at(path, vhdx.BAT_OFFSET, 4096))
    entries, sector = [], where
    tail = where * 4096 % MIB
    zeroed, logged = (image.data_offset + 4096, 8192), (image.data_offset + 8192, b"\x5a" * 4096)
    for number, change in enumerate([(1, offsets[0]), (2, offsets[1]), [zeroed, logged]]):
        if number < 2:
            struct.pack_into("<Q", bat, 8 * change[0], change[1] | vhdx.FULLY)
            changes = [(vhdx.BAT_OFFSET, bytes(bat))]
        else:
            changes = change
        entries.append(vhdx.log_entry(first + number, tail, changes, flushed=image.end, last=image.end))
    vhdx.put_log(path, where * 4096, entries)
    shown = bytearray(noise(MIB, 1) + noise(MIB, 2) + noise(MIB, 3) + bytes(MIB))
    shown[4096:12288] = bytes(4096) + b"\x5a" * 4096
    return path, bytes(shown), entries


@pytest.mark.parametrize("where", [0, 100, 252, 253, 254, 255])
def test_dirty_log_is_replayed_in_memory(tmp_path, where):
    path, shown, _ = dirty_image(tmp_path, where)
    before = digest(path)
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown
    assert digest(path) == before
    told = info(path)
    assert told["dirty-flag"] is True and told["format-specific"]["data"]["log"] == "replayed"
    assert imgtk("check", path).code == 0


def test_qemu_img_replays_to_the_same(tmp_path):
    path, shown, _ = dirty_image(tmp_path)
    qemu_img("check", "-r", "all", "-f", "vhdx", path)
    qemu_img("convert", "-f", "vhdx", "-O", "raw", path, tmp_path / "q.raw")
    assert (tmp_path / "q.raw").read_bytes() == shown
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


def test_older_sequences_lose(tmp_path):
    path, shown, _ = dirty_image(tmp_path, where=20)
    for at, number in [(0, 3), (200, 2)]:
        vhdx.put_log(path, at * 4096, [vhdx.log_entry(number, at * 4096, [(vhdx.BAT_OFFSET, bytes(4096))])])
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


def test_entries_before_the_tail_are_not_replayed(tmp_path):
    """The head's tail names the second entry: the first one was flushed, and may be outdated."""
    image = vhdx.Image(2 * MIB)
    image.put(0, noise(MIB, 1))
    path = image.write(tmp_path / "a.vhdx")
    vhdx.put_log(path, 0, [vhdx.log_entry(5, 0, [(image.data_offset, b"\x11" * 4096)]),
                           vhdx.log_entry(6, 8192, [(image.data_offset + 4096, b"\x22" * 4096)]),
                           vhdx.log_entry(7, 8192, [(image.data_offset + 8192, b"\x33" * 4096)])])
    shown = bytearray(noise(MIB, 1) + bytes(MIB))
    shown[4096:12288] = b"\x22" * 4096 + b"\x33" * 4096
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


def test_a_torn_last_entry_is_left_out(tmp_path):
    path, _, entries = dirty_image(tmp_path)
    vhdx.patch(path, vhdx.LOG_OFFSET + len(entries[0]) + len(entries[1]) + 5000, b"torn")
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == noise(MIB, 1) + noise(MIB, 2) + noise(MIB, 3) + bytes(MIB)


def test_the_log_grows_the_file(tmp_path):
    """Hyper-V extends the file after the log says so: the missing end reads as zeroes."""
    image = vhdx.Image(2 * MIB)
    image.put(0, noise(MIB, 1))
    path = image.write(tmp_path / "a.vhdx")
    bat = struct.pack("<QQ", image.data_offset | vhdx.FULLY, image.end | vhdx.FULLY).ljust(4096, b"\0")
    vhdx.put_log(path, 0, [vhdx.log_entry(1, 0, [(vhdx.BAT_OFFSET, bat), (image.end + 4096, b"\x77" * 4096)],
                                          flushed=image.end, last=image.end + MIB)])
    shown = noise(MIB, 1) + bytes(4096) + b"\x77" * 4096 + bytes(MIB - 8192)
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


def test_many_overlapping_descriptors(tmp_path):
    """Later ones win, sector by sector, as they do when they are applied one after the other."""
    rng = random.Random(4)
    image = vhdx.Image(MIB)
    image.put(0, noise(MIB, 1))
    path = image.write(tmp_path / "a.vhdx")
    shown = bytearray(noise(MIB, 1))
    entries = []
    for number in range(12):
        changes = []
        for _ in range(rng.randint(1, 15)):
            at = rng.randrange(32)
            if rng.random() < 0.5:
                length = rng.randint(1, 40)
                changes.append((image.data_offset + at * 4096, length * 4096))
                shown[at * 4096:(at + length) * 4096] = bytes(length * 4096)
            else:
                data = rng.randbytes(4096)
                changes.append((image.data_offset + at * 4096, data))
                shown[at * 4096:(at + 1) * 4096] = data
        entries.append(vhdx.log_entry(100 + number, 0, changes))
    vhdx.put_log(path, 0, entries)
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


def test_more_descriptors_than_one_sector_holds(tmp_path):
    image = vhdx.Image(2 * MIB)
    image.put(0, noise(MIB, 1))
    path = image.write(tmp_path / "a.vhdx")
    pieces = [noise(4096, seed) for seed in range(200)]
    changes = [(image.data_offset + 4096 * i, data) for i, data in enumerate(pieces)]
    vhdx.put_log(path, 0, [vhdx.log_entry(1, 0, changes)])
    shown = b"".join(pieces) + noise(MIB, 1)[200 * 4096:] + bytes(MIB)
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


@pytest.mark.parametrize("name", ["checksum", "guid", "tail", "length", "flushed", "no entry", "bad descriptor",
                                  "other sequence", "data sector", "far away", "huge file"])
def test_bad_logs(tmp_path, name):
    path, _, entries = dirty_image(tmp_path)
    size = os.path.getsize(path)
    change = [(vhdx.BAT_OFFSET, bytes(4096))]
    one = bytearray(vhdx.log_entry(1, 0, change, flushed=0, last=0))
    match = "no complete sequence"
    if name == "checksum":
        one[2000] ^= 1
    elif name == "guid":
        one = vhdx.log_entry(1, 0, change, guid=uuid.UUID(int=9))
    elif name == "tail":
        one = vhdx.log_entry(1, 4096, change)
    elif name == "length":
        struct.pack_into("<I", one, 8, 2 * MIB)
    elif name == "flushed":
        one, match = vhdx.log_entry(1, 0, change, flushed=size + 1), "were on disk"
    elif name == "no entry":
        one = bytes(8192)
    elif name == "bad descriptor":
        one[64:68] = b"what"
        one, match = vhdx.seal(one), "unknown kind"
    elif name == "other sequence":
        struct.pack_into("<Q", one, 64 + 24, 2)
        one, match = vhdx.seal(one), "descriptor of entry 2"
    elif name == "data sector":
        one[4096:4100] = b"atad"
        one, match = vhdx.seal(one), "not one of its own"
    elif name == "far away":
        one, match = vhdx.log_entry(1, 0, [(1 << 62, 4096)]), "128 TiB"
    elif name == "huge file":
        one, match = vhdx.log_entry(1, 0, change, last=1 << 60), "128 TiB"
    vhdx.patch(path, vhdx.LOG_OFFSET, bytes(MIB))
    vhdx.put_log(path, 0, [bytes(one)])
    refused(path, match, tmp_path)


def test_log_descriptors_beyond_the_entry(tmp_path):
    """More data descriptors than data sectors, and a count that no entry holds."""
    path, _, _ = dirty_image(tmp_path)
    entry = bytearray(vhdx.log_entry(1, 0, [(vhdx.BAT_OFFSET, bytes(4096))] * 2))
    struct.pack_into("<I", entry, 8, 8192)
    vhdx.patch(path, vhdx.LOG_OFFSET, bytes(MIB))
    vhdx.put_log(path, 0, [vhdx.seal(entry[:8192])])
    refused(path, "describes more data", tmp_path)
    struct.pack_into("<I", entry, 24, 0xFFFFFFFF)
    vhdx.put_log(path, 0, [vhdx.seal(entry[:8192])])
    refused(path, "no complete sequence", tmp_path)


def test_a_log_of_overlapping_entries_ends(tmp_path):
    """Every sector begins an entry as long as the ring, none of them good: quadratic work is refused."""
    path, _, _ = dirty_image(tmp_path)
    sector = bytearray(vhdx.log_entry(1, 0, []))
    struct.pack_into("<I", sector, 8, MIB)
    vhdx.put_log(path, 0, [bytes(sector)] * 256)
    refused(path, "overlap", tmp_path)


def test_a_log_that_is_one_entry_all_around(tmp_path):
    path, _, _ = dirty_image(tmp_path)
    image = vhdx.Image(4 * MIB)
    vhdx.put_log(path, 4096, [vhdx.log_entry(1, 4096, [(image.data_offset, bytes([i]) * 4096) for i in range(253)])])
    assert to_raw(path, tmp_path / "b.raw").read_bytes()[:4096] == b"\xfc" * 4096


# ---- Damage ------------------------------------------------------------------


def plain_image(tmp_path, blocks=3, size=4 * MIB, **more):
    image = vhdx.Image(size, **more)
    for block in range(blocks):
        image.put(block, noise(MIB, block))
    path = image.write(tmp_path / "plain.vhdx")
    shown = b"".join(noise(MIB, block) for block in range(blocks)).ljust(size, b"\0")
    return image, path, shown


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("what", ["header", "region table"])
def test_one_damaged_copy_is_tolerated_and_told(tmp_path, what, number):
    _, path, shown = plain_image(tmp_path)
    offset = (vhdx.HEADER_OFFSETS if what == "header" else vhdx.REGION_OFFSETS)[number - 1]
    vhdx.patch(path, offset + 100, b"damage")
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown
    assert specific(path)["damaged-" + what.replace(" ", "-")] == number
    assert f"{what} {number} is damaged" in repr(imgtk("check", path, code=2))


@pytest.mark.parametrize("offsets,match", [(vhdx.HEADER_OFFSETS, "neither header"),
                                           (vhdx.REGION_OFFSETS, "region table checksum")])
def test_both_copies_damaged_is_refused(tmp_path, offsets, match):
    _, path, _ = plain_image(tmp_path)
    for offset in offsets:
        vhdx.patch(path, offset + 100, b"damage")
    refused(path, match, tmp_path)


def test_the_newer_header_wins(tmp_path):
    _, path, shown = plain_image(tmp_path)
    vhdx.patch(path, vhdx.HEADER_OFFSETS[0], vhdx.header(9, data_write=uuid.UUID(int=1)))
    assert specific(path)["data-write-guid"] == str(uuid.UUID(int=1))
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


@pytest.mark.parametrize("number", [1, 2])
def test_a_header_of_another_version_is_not_passed_over(tmp_path, number):
    _, path, _ = plain_image(tmp_path)
    vhdx.patch(path, vhdx.HEADER_OFFSETS[number - 1], vhdx.header(9, version=2))
    refused(path, "version 2", tmp_path)


def test_no_log_at_all(tmp_path):
    _, path, shown = plain_image(tmp_path)
    vhdx.set_headers(path, log_length=0, log_offset=vhdx.BAT_OFFSET + 4096)
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown


def test_only_a_wrong_checksum_gives_way_to_the_second_region_table(tmp_path):
    image, path, _ = plain_image(tmp_path)
    vhdx.patch(path, vhdx.REGION_OFFSETS[0], vhdx.region_table(image.regions()[:1]))
    refused(path, "no metadata", tmp_path)


def test_headers_of_equal_number_that_differ_are_refused(tmp_path):
    _, path, _ = plain_image(tmp_path)
    vhdx.patch(path, vhdx.HEADER_OFFSETS[0], vhdx.header(2, data_write=uuid.UUID(int=1)))
    refused(path, "differ", tmp_path)


@pytest.mark.parametrize("fields,match", [
    (dict(version=2), "version 2"), (dict(log_offset=0), "whole MiB"), (dict(log_offset=MIB + 4096), "whole MiB"),
    (dict(log_length=4096), "whole MiB"), (dict(log_offset=1 << 60), "beyond"),
    (dict(log_offset=vhdx.BAT_OFFSET), "overlaps"), (dict(log_guid=vhdx.LOG_GUID, log_version=1), "log version"),
    (dict(log_guid=vhdx.LOG_GUID, log_length=0), "whole MiB")])
def test_bad_headers(tmp_path, fields, match):
    _, path, _ = plain_image(tmp_path)
    vhdx.set_headers(path, **fields)
    refused(path, match, tmp_path)


@pytest.mark.parametrize("name", ["unknown required", "overlap", "twice", "unaligned", "beyond", "no bat",
                                  "no metadata", "count", "empty", "low"])
def test_bad_region_tables(tmp_path, name):
    image, path, _ = plain_image(tmp_path)
    other = uuid.UUID("deadbeef-0000-4000-8000-0123456789ab")
    bat, items = image.regions()
    entries, match = {
        "unknown required": ([bat, items, (other, image.data_offset, MIB, 1)], str(other)),
        "overlap": ([bat, items, (other, vhdx.BAT_OFFSET, MIB, 0)], "overlap"),
        "twice": ([bat, items, (vhdx.BAT_REGION, image.data_offset, MIB, 1)], "twice"),
        "unaligned": ([(vhdx.BAT_REGION, vhdx.BAT_OFFSET + 4096, MIB, 1), items], "whole MiB"),
        "beyond": ([(vhdx.BAT_REGION, vhdx.BAT_OFFSET, 0xFFF00000, 1), items], "beyond"),
        "no bat": ([items], "no block allocation table"),
        "no metadata": ([bat], "no metadata"),
        "count": ([bat, items], "2047"),
        "empty": ([(vhdx.BAT_REGION, vhdx.BAT_OFFSET, 0, 1), items], "whole MiB"),
        "low": ([(vhdx.BAT_REGION, 0, MIB, 1), items], "whole MiB"),
    }[name]
    table = bytearray(vhdx.region_table(entries))
    if name == "count":
        struct.pack_into("<I", table, 8, 2048)
    for offset in vhdx.REGION_OFFSETS:
        vhdx.patch(path, offset, vhdx.seal(table))
    refused(path, match, tmp_path)


def test_unknown_optional_parts_are_ignored(tmp_path):
    image = vhdx.Image(4 * MIB)
    image.put(0, noise(MIB, 0))
    image.extra_regions.append((uuid.UUID(int=77), image.place(MIB), MIB, 0))
    image.extra_items.append((uuid.UUID(int=78), b"something", 1))
    image.extra_items.append((uuid.UUID(int=79), b"", 0))
    path = image.write(tmp_path / "a.vhdx")
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == noise(MIB, 0) + bytes(3 * MIB)


def items_with(image, guid, value):
    return [(which, value if which == guid else old, flags) for which, old, flags in image.items()]


@pytest.mark.parametrize("name", [
    "unknown required", "unknown required user", "signature", "count", "twice", "missing", "overlap", "low", "beyond",
    "long", "short", "block size 0", "block size 3M", "block size 512M", "sector 1024", "physical 0", "size odd",
    "size huge", "size wraps", "no locator"])
def test_bad_metadata(tmp_path, name):
    image, path, _ = plain_image(tmp_path)
    other = uuid.UUID("deadbeef-0000-4000-8000-0123456789ab")
    good = image.items()
    cases = {
        "unknown required": (good + [(other, b"x", 4)], str(other)),
        "unknown required user": (good + [(other, b"x", 5)], str(other)),
        "twice": (good + [good[1]], "twice"),
        "missing": (good[:1] + good[2:], "lack the virtual disk size"),
        "block size 0": (items_with(image, vhdx.FILE_PARAMETERS, bytes(8)), "power of two"),
        "block size 3M": (items_with(image, vhdx.FILE_PARAMETERS, struct.pack("<II", 3 * MIB, 0)), "power of two"),
        "block size 512M": (items_with(image, vhdx.FILE_PARAMETERS, struct.pack("<II", 512 * MIB, 0)), "power of two"),
        "short": (items_with(image, vhdx.FILE_PARAMETERS, bytes(4)), "4 bytes, not 8"),
        "sector 1024": (items_with(image, vhdx.LOGICAL_SECTOR, struct.pack("<I", 1024)), "neither 512 nor 4096"),
        "physical 0": (items_with(image, vhdx.PHYSICAL_SECTOR, bytes(4)), "neither 512 nor 4096"),
        "size odd": (items_with(image, vhdx.DISK_SIZE, struct.pack("<Q", MIB + 1)), "whole sectors"),
        "size huge": (items_with(image, vhdx.DISK_SIZE, struct.pack("<Q", 64 * TIB)), "cannot hold"),
        "size wraps": (items_with(image, vhdx.DISK_SIZE, struct.pack("<Q", 2 ** 64 - 512)), "64 TiB"),
        "no locator": (items_with(image, vhdx.FILE_PARAMETERS, struct.pack("<II", MIB, 2)), "without a parent locator"),
    }
    items, match = cases.get(name, (good, ""))
    table = bytearray(vhdx.metadata(items))
    first = 32 + 16  # offset and length of the first item
    if name == "signature":
        table[0:8], match = b"metadatb", "signature"
    elif name == "count":
        table[10:12], match = b"\x00\x08", "2047"
    elif name == "overlap":
        table[first:first + 4], match = table[first + 32:first + 36], "overlaps"
    elif name == "low":
        table[first:first + 4], match = struct.pack("<I", 100), "outside"
    elif name == "beyond":
        table[first:first + 4], match = struct.pack("<I", MIB - 4), "outside"
    elif name == "long":
        table[first + 4:first + 8], match = struct.pack("<I", 0xFFFFFFF0), "1 MiB"
    vhdx.patch(path, vhdx.METADATA_OFFSET, table)
    refused(path, match, tmp_path)


@pytest.mark.parametrize("entry,match", [
    (4, "state 4"), (5, "state 5"), (vhdx.FULLY, "tables"), (vhdx.FULLY | MIB, "tables"),
    (vhdx.FULLY | vhdx.METADATA_OFFSET, "tables"), (vhdx.FULLY | vhdx.BAT_OFFSET, "tables"),
    (vhdx.FULLY | 0xFFFFFFFFFFF00000, "beyond"), (vhdx.FULLY | 1 << 40, "beyond"),
    (vhdx.FULLY | 4 * MIB, "shares its place"), (vhdx.PARTIALLY | 7 * MIB, "without a parent")])
def test_bad_bat_entries(tmp_path, entry, match):
    _, path, _ = plain_image(tmp_path)
    vhdx.patch(path, vhdx.BAT_OFFSET + 8 * 3, struct.pack("<Q", entry))
    refused(path, match, tmp_path)
    assert match in repr(imgtk("check", path, code=2))


def test_every_entry_wrong_is_counted_and_bounded(tmp_path):
    image = vhdx.Image(64 * GIB)
    path = image.write(tmp_path / "a.vhdx")
    vhdx.patch(path, vhdx.BAT_OFFSET, struct.pack("<Q", vhdx.FULLY | 1 << 45) * (64 * GIB // MIB))
    told = json.loads(imgtk("check", "--output=json", path, code=2, memory=512 * MIB).out)
    assert told["corruptions"] > 60000 and told["total-clusters"] == 64 * GIB // MIB


def test_missing_or_misplaced_sector_bitmap(tmp_path):
    child, _ = parent_and_child(tmp_path)
    child.put_sectors(1, {3: noise(512)})
    image = child.write(tmp_path / "child.vhdx")
    index = vhdx.BAT_OFFSET + 8 * child.chunk_ratio
    for entry, match in [(0, "its sector bitmap is not"), (6 | 1 << 40, "beyond"), (6 | vhdx.BAT_OFFSET, "tables")]:
        vhdx.patch(image, index, struct.pack("<Q", entry))
        refused(image, match, tmp_path)


def test_all_states_without_data_read_as_zeroes(tmp_path):
    image = vhdx.Image(5 * MIB)
    image.put(0, noise(MIB))
    # Where an unmapped block once lay does not matter.
    for block, state in [(1, vhdx.NOT_PRESENT), (2, vhdx.UNDEFINED), (3, vhdx.ZERO), (4, vhdx.UNMAPPED)]:
        image.set_state(block, state, image.data_offset if state == vhdx.UNMAPPED else 0)
    path = image.write(tmp_path / "a.vhdx")
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == noise(MIB) + bytes(4 * MIB)
    rows = json.loads(imgtk("map", "--output=json", path).out)
    assert [(row["start"], row["present"]) for row in rows] == [(0, True), (MIB, False), (2 * MIB, True)]


def test_4k_sectors(tmp_path):
    _, path, shown = plain_image(tmp_path, sector=4096)
    assert to_raw(path, tmp_path / "b.raw").read_bytes() == shown
    assert specific(path)["logical-sector-size"] == 4096


def test_truncation_anywhere_is_refused(tmp_path):
    _, path, _ = plain_image(tmp_path)
    size = os.path.getsize(path)
    whole = path.read_bytes()
    cuts = [8, 100, 520, 64 * KIB, 64 * KIB + 100, 128 * KIB, 192 * KIB + 1, 256 * KIB, 319 * KIB, MIB - 1, MIB,
            MIB + 1, 2 * MIB, 2 * MIB + 4096, 2 * MIB + 70000, 3 * MIB, 3 * MIB + 8, 4 * MIB - 1, 4 * MIB, 5 * MIB,
            size - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        refused(path, ".", tmp_path)
    path.write_bytes(b"")
    refused(path, ".", tmp_path)


def test_random_damage_never_crashes(tmp_path):
    """Whatever the bytes say: success or one line, in bounded memory."""
    rng = random.Random(99)
    child, _ = parent_and_child(tmp_path)
    child.put_sectors(1, {3: noise(512)})
    sources = [plain_image(tmp_path)[1], child.write(tmp_path / "child.vhdx"), dirty_image(tmp_path)[0]]
    interesting = [(64 * KIB, 4096), (128 * KIB, 4096), (192 * KIB, 200), (MIB, 16 * KIB), (2 * MIB, 300),
                   (2 * MIB + 64 * KIB, 400), (3 * MIB, 64)]
    for turn in range(60):
        path = tmp_path / "fuzzed.vhdx"
        shutil.copy(sources[turn % 3], path)
        for _ in range(rng.randint(1, 6)):
            start, length = rng.choice(interesting)
            vhdx.patch(path, start + rng.randrange(length), rng.choice([b"\0", b"\xff", b"\x80", rng.randbytes(8)]))
        for offset in vhdx.HEADER_OFFSETS:
            vhdx.reseal(path, offset, vhdx.HEADER_SIZE)
        if turn % 2:
            for offset in vhdx.REGION_OFFSETS:
                vhdx.reseal(path, offset, vhdx.REGION_SIZE)
        for command, *target in (["convert", "-O", "raw", tmp_path / "out.raw"], ["check"], ["info"], ["map"]):
            options, target = target[:-1], target[-1:]
            result = imgtk(command, "-f", "vhdx", *options, path, *target, code=None, memory=512 * MIB, timeout=30)
            assert result.code in (0, 1, 2), result
            assert result.code != 1 or len(result.err.splitlines()) == 1, result

"""imgtk check tells and returns what qemu-img tells and returns."""
import json
import shutil
import struct
from pathlib import Path

import build_vhd as vhd
import pytest
import vhdx_images as vhdx

from imgtk_test import (KIB, MIB, assert_same_bytes, compressible, imgtk, imgtk_fails, make_image, make_raw, qemu_img,
                        qemu_io)

CHECKED = ["vdi", "vmdk", "vhdx"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(name, fmt):
    make_image(name, 10 * MIB, fmt, writes=["write 1M 64k", "write 3M 300k"])


@pytest.mark.parametrize("fmt", CHECKED)
def test_clean(folder, fmt):
    make("a.img", fmt)
    theirs = qemu_img("check", "a.img").out
    ours = imgtk("check", "a.img").out
    assert ours.startswith("No errors were found on the image.\n")
    assert set(theirs.splitlines()) <= set(ours.splitlines())
    assert imgtk("check", "-q", "a.img").out == ""
    assert imgtk("check", "-f", fmt, "a.img").out == ours


@pytest.mark.parametrize("fmt", CHECKED)
def test_json(folder, fmt):
    make("a.img", fmt)
    theirs = json.loads(qemu_img("check", "--output=json", "a.img").out)
    ours = json.loads(imgtk("check", "--output=json", "a.img").out)
    assert theirs.items() <= ours.items()
    assert 0 < ours["allocated-clusters"] < ours["total-clusters"]
    assert "leaks" not in ours and "corruptions" not in ours


def misreference(path):
    """Lets two entries of a VDI's block map name the same block."""
    with open(path, "r+b") as file:
        file.seek(0x154)
        table = int.from_bytes(file.read(4), "little")
        file.seek(table + 4)
        entry = file.read(4)
        file.seek(table + 3 * 4)
        file.write(entry)


def test_corruption(folder):
    make("a.vdi", "vdi")
    misreference("a.vdi")
    theirs = qemu_img("check", "a.vdi", code=2)
    ours = imgtk("check", "a.vdi", code=2)
    told = "1 errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n"
    assert told in ours.out and told in theirs.out
    assert len(ours.err.splitlines()) >= 1
    assert json.loads(imgtk("check", "--output=json", "a.vdi", code=2).out)["corruptions"] == 1
    assert imgtk("check", "-q", "a.vdi", code=2).out == ""


def test_a_format_without_checks(folder):
    make_raw("a.raw", MIB)
    ours = imgtk("check", "a.raw", code=63)
    assert ours.err == "imgtk: This image format does not support checks\n" and ours.out == ""
    assert qemu_img("check", "a.raw", code=63).err == ours.err.replace("imgtk", "qemu-img")


def test_mistakes(folder):
    make_image("a.qcow2", 64 * KIB)
    imgtk_fails("check", "nx", match="Could not open 'nx': No such file or directory")
    imgtk_fails("check", "--output=xml", "a.qcow2", match="--output must be used with human or json")
    assert "(expecting 'leaks' or 'all'): foo" in imgtk("check", "-r", "foo", "a.qcow2", code=1).err
    assert "Expecting one image file name" in imgtk("check", code=1).err


# ---- Repair of other formats ------------------------------------------------------------

def test_repair_of_a_vdi_count(folder):
    make("a.vdi", "vdi")
    before = Path("a.vdi").read_bytes()
    Path("a.vdi").write_bytes(before[:0x184] + b"\x77" + before[0x185:])
    damaged = Path("a.vdi").read_bytes()
    imgtk("check", "a.vdi", code=2)
    imgtk("check", "-r", "leaks", "a.vdi", code=2)
    assert Path("a.vdi").read_bytes() == damaged
    assert "1 corruptions" in imgtk("check", "-r", "all", "a.vdi").out
    assert Path("a.vdi").read_bytes() == before


def test_nothing_else_of_a_vdi_is_repaired(folder):
    make("a.vdi", "vdi")
    misreference("a.vdi")
    before = Path("a.vdi").read_bytes()
    imgtk("check", "-r", "all", "a.vdi", code=2)
    assert Path("a.vdi").read_bytes() == before


@pytest.mark.parametrize("place", ["front", "end", "cut"])
def test_repair_of_a_vhd_footer(folder, place):
    imgtk("convert", "-O", "vpc", make_raw("a.raw", 3 * MIB, [(MIB, b"x" * MIB)]), "a.vhd")
    before = Path("a.vhd").read_bytes()
    damage = {"front": bytes(512) + before[512:], "end": before[:-512] + b"?" * 512, "cut": before[:-512]}
    Path("a.vhd").write_bytes(damage[place])
    imgtk("check", "a.vhd", code=2)
    imgtk("check", "-r", "leaks", "a.vhd", code=2)
    assert Path("a.vhd").read_bytes() == damage[place]
    assert "1 corruptions" in imgtk("check", "-r", "all", "a.vhd").out
    assert Path("a.vhd").read_bytes() == before


def vhdx_with_a_log():
    """A block's entry of the table is in the log alone."""
    image = vhdx.Image(2 * MIB)
    image.put(0, b"a" * MIB)
    image.write("a.vhdx")
    end, place = image.end, image.place(MIB)
    entry = vhdx.read_at("a.vhdx", vhdx.BAT_OFFSET, 8) + struct.pack("<Q", place | vhdx.FULLY)
    vhdx.put_log("a.vhdx", 0, [vhdx.log_entry(1, 0, [(vhdx.BAT_OFFSET, entry.ljust(4096, b"\0")),
                                                     (place, b"b" * 4096), (place + 4096, 8192)],
                                              flushed=end, last=image.end)])


def test_repair_of_a_vhdx_replays_its_log(folder):
    vhdx_with_a_log()
    imgtk("convert", "-O", "raw", "a.vhdx", "before")
    before = Path("a.vhdx").read_bytes()
    imgtk("check", "-r", "leaks", "a.vhdx")
    assert Path("a.vhdx").read_bytes() == before
    assert "1 corruptions" in imgtk("check", "-r", "all", "a.vhdx").out
    assert json.loads(imgtk("info", "--output=json", "a.vhdx").out)["dirty-flag"] is False
    imgtk("convert", "-O", "raw", "a.vhdx", "after")
    assert_same_bytes("before", "after")
    assert qemu_img("compare", "-f", "raw", "-F", "vhdx", "before", "a.vhdx").code == 0
    assert "repaired" not in imgtk("check", "-r", "all", "a.vhdx").out


def test_a_vhdx_log_that_changes_itself_is_not_replayed(folder):
    vhdx_with_a_log()
    vhdx.put_log("a.vhdx", 0, [vhdx.log_entry(1, 0, [(vhdx.LOG_OFFSET + 65536, 4096)])])
    before = Path("a.vhdx").read_bytes()
    assert "not replayed" in imgtk("check", "-r", "all", "a.vhdx").err
    assert Path("a.vhdx").read_bytes() == before


@pytest.mark.parametrize("place", [*vhdx.HEADER_OFFSETS, *vhdx.REGION_OFFSETS])
def test_repair_of_copies_in_a_vhdx(folder, place):
    image = vhdx.Image(2 * MIB)
    image.put(1, b"a" * MIB)
    image.write("a.vhdx")
    vhdx.patch("a.vhdx", place + 100, b"?")
    imgtk("check", "a.vhdx", code=2)
    assert "1 corruptions" in imgtk("check", "-r", "all", "a.vhdx").out
    assert vhdx.read_at("a.vhdx", vhdx.REGION_OFFSETS[0], 65536) == vhdx.read_at("a.vhdx", vhdx.REGION_OFFSETS[1], 65536)
    assert qemu_img("check", "-f", "vhdx", "a.vhdx").code == 0


# ---- What nothing names -----------------------------------------------------------------

def lose_block(path, fmt, which=1):
    """Takes the second data block or grain out of the tables: nothing names its place any more. -1: the last one."""
    data = bytearray(Path(path).read_bytes())
    if fmt == "vdi":
        table, width, none = int.from_bytes(data[0x154:0x158], "little"), 4, b"\xff" * 4
    elif fmt == "vpc":
        table, width, none = int.from_bytes(data[528:536], "big"), 4, b"\xff" * 4
    elif fmt == "vhdx":
        table, width, none = (3 if data[3 * MIB] != 0x6d else 2) * MIB, 8, bytes(8)
    else:  # both copies of the table
        for directory in (48, 56):
            gd = int.from_bytes(data[directory:directory + 8], "little") * 512
            gt = int.from_bytes(data[gd:gd + 4], "little") * 512
            at = [at for at in range(gt, gt + 2048, 4) if data[at:at + 4] != bytes(4)][which]
            data[at:at + 4] = bytes(4)
        Path(path).write_bytes(data)
        return
    entries = range(table, table + 16 * width // (2 if fmt == "vpc" else 1), width)
    at = [at for at in entries if data[at:at + width] not in (none, b"\2".ljust(width, b"\0"))][which]
    data[at:at + width] = none
    if fmt == "vdi":
        count = int.from_bytes(data[0x184:0x188], "little") - 1
        data[0x184:0x188] = count.to_bytes(4, "little")
    Path(path).write_bytes(data)


@pytest.mark.parametrize("fmt", ["vdi", "vpc", "vhdx", "vmdk"])
@pytest.mark.parametrize("writer", ["imgtk", "qemu-img"])
def test_leaks(folder, fmt, writer):
    options = ["-o", "block_size=1M"] if fmt == "vhdx" else []
    raw = make_raw("a.raw", 16 * MIB, [(MIB, compressible(3 * MIB)), (9 * MIB, compressible(2 * MIB + 512))])
    (imgtk if writer == "imgtk" else qemu_img)("convert", "-O", fmt, *options, raw, "a.img")
    assert imgtk("check", "a.img").err == ""
    lose_block("a.img", fmt)
    for options in ([], ["-r", "leaks"]):
        result = imgtk("check", *options, "a.img", code=3)
        assert "\n1 leaked clusters were found on the image.\n" in result.out and len(result.err.splitlines()) == 1
    if fmt != "vpc":
        assert qemu_img("check", "-f", fmt, "a.img").code == 0


def disk(path, fmt):
    return imgtk("checksum", "-f", fmt, path).out.split()[0]


@pytest.mark.parametrize("fmt", ["vdi", "vpc", "vhdx", "vmdk"])
@pytest.mark.parametrize("writer", ["imgtk", "qemu-img"])
def test_leaks_at_the_end_are_cut_off(folder, fmt, writer):
    options = ["-o", "block_size=1M"] if fmt == "vhdx" else []
    raw = make_raw("a.raw", 16 * MIB, [(MIB, compressible(3 * MIB)), (9 * MIB, compressible(2 * MIB + 512))])
    (imgtk if writer == "imgtk" else qemu_img)("convert", "-O", fmt, *options, raw, "a.img")
    lost = {"vdi": 2, "vhdx": 2, "vpc": 1, "vmdk": 3}[fmt]
    for _ in range(lost):
        lose_block("a.img", fmt, -1)
    shutil.copy("a.img", "before.img")
    before, size = disk("a.img", fmt), Path("a.img").stat().st_size
    assert f"{lost} leaked clusters" in imgtk("check", "a.img", code=3).out
    result = imgtk("check", "-r", "leaks", "a.img")
    assert f"    {lost} leaked clusters\n" in result.out and "\nNo errors were found" in result.out
    cut = {"vdi": MIB, "vhdx": MIB, "vpc": 2 * MIB, "vmdk": 64 * KIB}[fmt] * lost
    assert cut <= size - Path("a.img").stat().st_size < cut + 64 * KIB
    assert disk("a.img", fmt) == before
    assert qemu_img("compare", "-f", fmt, "-F", fmt, "before.img", "a.img").code == 0
    if fmt != "vpc":
        assert qemu_img("check", "-f", fmt, "a.img").code == 0
    assert imgtk("check", "-r", "all", "a.img").err == ""


@pytest.mark.parametrize("fmt", ["vdi", "vpc", "vhdx", "vmdk"])
def test_an_image_without_its_leaks_goes_on_to_be_written(folder, fmt):
    """QEMU puts its next block where the lost one was."""
    imgtk("convert", "-O", fmt, make_raw("a.raw", 16 * MIB, [(MIB, compressible(8 * MIB))]), "a.img")
    lose_block("a.img", fmt, -1)
    imgtk("check", "-q", "-r", "leaks", "a.img")
    qemu_io("a.img", "write -P 7 9M 3M", fmt=fmt)
    qemu_io("a.img", "read -P 7 9M 3M", fmt=fmt)
    assert imgtk("check", "a.img").err == ""


def flip(path, at, value):
    data = bytearray(Path(path).read_bytes())
    data[at:at + len(value)] = value
    Path(path).write_bytes(data)


@pytest.mark.parametrize("fmt, damage, reason", [
    ("vdi", lambda: flip("a.img", 0x184, b"\x77"), "other faults"),
    ("vdi", lambda: flip("a.img", 0x170, struct.pack("<Q", 15 * MIB)), "for more than the disk"),
    ("vpc", lambda: flip("a.img", 0, b"?"), "other faults"),
    ("vhdx", lambda: vhdx.patch("a.img", vhdx.HEADER_OFFSETS[0] + 100, b"?"), "other faults"),
    ("vmdk", lambda: flip("a.img", 72, b"\1"), "not closed"),
])
def test_leaks_at_the_end_stay_where_that_is_not_safe(folder, fmt, damage, reason):
    options = ["-o", "block_size=1M"] if fmt == "vhdx" else []
    raw = make_raw("a.raw", 16 * MIB, [(MIB, compressible(8 * MIB))])
    imgtk("convert", "-O", fmt, *options, raw, "a.img")
    lose_block("a.img", fmt, -1)
    lose_block("a.img", fmt, -1)
    damage()
    before = Path("a.img").read_bytes()
    result = imgtk("check", "-r", "leaks", "a.img", code=None)
    assert result.code in (2, 3) and "stays there: " in result.err and reason in result.err
    assert Path("a.img").read_bytes() == before


def test_leaks_of_a_vhd_whose_writer_keeps_more(tmp_path):
    image = tmp_path / "a.vhd"
    for creator, pieces, code in [(b"win ", [(0, b"a" * 512), (4 * MIB, b"b" * 512)], 0),
                                  (b"tap\0", [(0, b"a" * 512), (4 * MIB, b"b" * 512)], 3), (b"win ", [], 3)]:
        vhd.build(image, 8 * MIB, pieces, creator=creator)
        data = image.read_bytes()
        image.write_bytes(data[:-512] + bytes(3 * MIB) + data[-512:])
        assert ("stays there: " in imgtk("check", "-r", "leaks", image, code=code).err) == (code == 3)
        assert (image.stat().st_size == len(data)) == (code == 0)


def test_reserved_bits_of_a_vhdx(folder):
    image = vhdx.Image(4 * MIB)
    image.put(1, b"a" * MIB)
    for damage in ("entry", "entry of nothing", "header", "region table"):
        image.write("a.vhdx")
        assert imgtk("check", "a.vhdx").err == ""
        if damage == "entry":
            vhdx.patch("a.vhdx", vhdx.BAT_OFFSET + 8, struct.pack("<Q", image.bat[1] | 1 << 10))
        elif damage == "entry of nothing":
            vhdx.patch("a.vhdx", vhdx.BAT_OFFSET + 16, struct.pack("<Q", 8))
        elif damage == "header":
            vhdx.patch("a.vhdx", vhdx.HEADER_OFFSETS[1] + 2000, b"\1")
            vhdx.reseal("a.vhdx", vhdx.HEADER_OFFSETS[1], vhdx.HEADER_SIZE)
        else:
            vhdx.patch("a.vhdx", vhdx.REGION_OFFSETS[0] + 12, b"\1")
            vhdx.reseal("a.vhdx", vhdx.REGION_OFFSETS[0], vhdx.REGION_SIZE)
        result = imgtk("check", "a.vhdx", code=2)
        assert "reserved bits" in result.err and "\n1 errors" in "\n" + result.out
        imgtk("convert", "-O", "raw", "a.vhdx", "a.raw")


def test_nothing_else_of_a_vmdk_is_repaired(folder):
    imgtk("convert", "-O", "vmdk", make_raw("a.raw", MIB, [(0, compressible(MIB))]), "a.vmdk")
    lose_block("a.vmdk", "vmdk", -1)
    data = Path("a.vmdk").read_bytes()
    directory = int.from_bytes(data[48:56], "little") * 512
    flip("a.vmdk", int.from_bytes(data[directory:directory + 4], "little") * 512, b"\xff\xff\xff")
    before = Path("a.vmdk").read_bytes()
    assert "other faults" in imgtk("check", "-r", "all", "a.vmdk", code=2).err
    assert Path("a.vmdk").read_bytes() == before


def test_a_compressed_vmdk_keeps_its_size(folder):
    raw = make_raw("a.raw", MIB, [(0, b"a" * MIB)])
    imgtk("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, "a.vmdk")
    before = Path("a.vmdk").read_bytes()
    imgtk("check", "-r", "all", "a.vmdk")
    assert Path("a.vmdk").read_bytes() == before

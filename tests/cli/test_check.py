"""imgtk check tells and returns what qemu-img tells and returns."""
import json
from pathlib import Path

import pytest

from imgtk_test import KIB, MIB, imgtk, imgtk_fails, make_image, make_raw, qemu_img

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


def test_a_format_that_is_not_repaired(folder):
    imgtk("create", "-q", "-f", "vmdk", "a.vmdk", "1M")
    assert "checked, but not repaired" in imgtk("check", "-r", "all", "a.vmdk", code=63).err

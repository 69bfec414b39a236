"""imgtk check on qcow2: every word and exit code is qemu-img's."""
import json

import pytest

from imgtk_test import MIB, imgtk, make_image, qemu_img

KINDS = {
    "empty": ("", []),
    "data": ("", ["write 1M 64k", "write 3M 300k"]),
    "zeroes": ("cluster_size=4k", ["write 1M 64k", "write -z 2M 64k"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(*words):
    """Runs both; returns imgtk's result, which must agree in the exit code and on stdout."""
    theirs = qemu_img("check", *words, code=None)
    ours = imgtk("check", *words, code=theirs.code)
    if "--output=json" in words:
        assert json.loads(ours.out) == json.loads(theirs.out)
    else:
        assert ours.out == theirs.out
    return ours


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [[], ["--output=json"], ["-q"], ["-f", "qcow2"]], ids=" ".join)
def test_clean(folder, kind, words):
    options, writes = KINDS[kind]
    make_image("a.qcow2", 10 * MIB, options=options, writes=writes)
    assert same(*words, "a.qcow2").err == ""


@pytest.mark.parametrize("words", [[], ["--output=json"]], ids=" ".join)
def test_compressed(folder, words):
    make_image("a.qcow2", 10 * MIB, writes=["write 1M 64k", "write 3M 300k"])
    qemu_img("convert", "-c", "-O", "qcow2", "a.qcow2", "b.qcow2")
    same(*words, "b.qcow2")


def leak(path):
    """Takes the L2 entry of the first cluster away: that cluster is leaked."""
    with open(path, "r+b") as file:
        file.seek(40)
        l1 = int.from_bytes(file.read(8), "big")
        file.seek(l1)
        l2 = int.from_bytes(file.read(8), "big") & 0x00fffffffffffe00
        file.seek(l2)
        file.write(bytes(8))


def misreference(path):
    """Lets the second cluster's L2 entry name the first one's data."""
    with open(path, "r+b") as file:
        file.seek(40)
        l1 = int.from_bytes(file.read(8), "big")
        file.seek(l1)
        l2 = int.from_bytes(file.read(8), "big") & 0x00fffffffffffe00
        file.seek(l2)
        entry = file.read(8)
        file.write(entry)


@pytest.mark.parametrize("words", [[], ["--output=json"]], ids=" ".join)
def test_leaks(folder, words):
    make_image("a.qcow2", 10 * MIB, writes=["write 0 128k"])
    leak("a.qcow2")
    assert same(*words, "a.qcow2").code == 3


@pytest.mark.parametrize("words", [[], ["--output=json"]], ids=" ".join)
def test_corruption(folder, words):
    make_image("a.qcow2", 10 * MIB, writes=["write 0 128k"])
    misreference("a.qcow2")
    assert same(*words, "a.qcow2").code == 2


def test_repair_of_leaks(folder):
    for name in ("a.qcow2", "b.qcow2"):
        make_image(name, 10 * MIB, writes=["write 0 128k"])
        leak(name)
    theirs = qemu_img("check", "-r", "leaks", "a.qcow2")
    ours = imgtk("check", "-r", "leaks", "b.qcow2")
    assert ours.out == theirs.out
    assert "No errors were found on the image." in ours.out
    assert qemu_img("check", "b.qcow2").code == 0


def test_no_backing_file_is_opened(folder):
    make_image("base.qcow2", MIB)
    make_image("top.qcow2", None, backing="base.qcow2", backing_fmt="qcow2", writes=["write 0 64k"])
    (folder / "base.qcow2").unlink()
    assert imgtk("check", "top.qcow2").out.startswith("No errors were found on the image.\n")


def test_repair_of_all(folder):
    for name in ("a.qcow2", "b.qcow2"):
        make_image(name, 10 * MIB, writes=["write -P 5 0 128k"])
        misreference(name)
    qemu_img("check", "-r", "all", "a.qcow2", code=None)
    imgtk("check", "-r", "all", "b.qcow2", code=None)
    assert qemu_img("check", "b.qcow2").out.startswith("No errors were found on the image.\n")
    assert qemu_img("compare", "a.qcow2", "b.qcow2").out == "Images are identical.\n"

"""imgtk info tells what qemu-img tells, in the same shape; what is new in either is named here."""
import json
import os
import subprocess

import pytest

from imgtk_test import IMGTK, KIB, MIB, environment, imgtk, imgtk_fails, make_image, make_raw, qemu_img

KINDS = {
    "plain": ("qcow2", ""),
    "small clusters": ("qcow2", "cluster_size=4k,refcount_bits=64,extended_l2=off"),
    "version 2": ("qcow2", "compat=0.10"),
    "zstd, extended": ("qcow2", "compression_type=zstd,extended_l2=on,lazy_refcounts=on"),
}


def without_child(text):
    """qemu-img 7.2 does not print the node of the file yet, 10.0 does."""
    return text.split("Child node '/file':")[0]


def common(document):
    """The members that both versions of qemu-img have."""
    return {key: value for key, value in document.items() if key != "children"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_human_is_qemu_imgs(folder, kind):
    fmt, options = KINDS[kind]
    make_image("a.img", 10 * MIB, fmt, options, writes=["write 1M 64k"])
    ours = imgtk("info", "a.img").out
    assert without_child(ours) == qemu_img("info", "a.img").out
    occupied = os.stat("a.img").st_blocks * 512
    assert f"Child node '/file':\n    filename: a.img\n    protocol type: file\n    file length: " in ours
    assert f"({os.path.getsize('a.img')} bytes)\n    disk size: {occupied // KIB} KiB\n" in ours


@pytest.mark.parametrize("kind", KINDS)
def test_json_is_qemu_imgs(folder, kind):
    fmt, options = KINDS[kind]
    make_image("a.img", 10 * MIB, fmt, options, writes=["write 1M 64k"])
    ours = json.loads(imgtk("info", "--output=json", "a.img").out)
    theirs = json.loads(qemu_img("info", "--output=json", "a.img").out)
    assert common(ours) == common(theirs)
    assert list(common(ours)) == list(common(theirs)), "the order of the members"
    child = ours["children"][0]
    assert child["name"] == "file"
    assert child["info"]["filename"] == "a.img"
    assert child["info"]["format"] == "file"
    assert child["info"]["virtual-size"] == os.path.getsize("a.img")


def test_raw(folder):
    make_raw("a.raw", 3 * MIB, [(MIB, b"x" * 70000)])
    assert without_child(imgtk("info", "a.raw").out) == qemu_img("info", "a.raw").out
    ours = json.loads(imgtk("info", "--output=json", "a.raw").out)
    assert common(ours) == json.loads(qemu_img("info", "--output=json", "a.raw").out)


def test_chain(folder):
    os.mkdir("sub")
    make_image("sub/base.qcow2", 10 * MIB, writes=["write 1M 64k"])
    make_image("sub/mid.qcow2", None, backing="base.qcow2", backing_fmt="qcow2")
    make_image("sub/top.qcow2", None, backing="mid.qcow2", backing_fmt="qcow2")
    ours = imgtk("info", "--backing-chain", "sub/top.qcow2").out
    layers = ours.split("\n\n")
    assert [without_child(layer).rstrip("\n") for layer in layers] == \
        qemu_img("info", "--backing-chain", "sub/top.qcow2").out.rstrip("\n").split("\n\n")
    assert "backing file: mid.qcow2 (actual path: sub/mid.qcow2)\n" in layers[0]
    documents = json.loads(imgtk("info", "--backing-chain", "--output=json", "sub/top.qcow2").out)
    theirs = json.loads(qemu_img("info", "--backing-chain", "--output=json", "sub/top.qcow2").out)
    assert [common(document) for document in documents] == theirs


def test_snapshots(folder):
    make_image("a.qcow2", MIB)
    qemu_img("snapshot", "-c", "first", "a.qcow2")
    qemu_img("snapshot", "-c", "a much longer name than the column", "a.qcow2")
    assert without_child(imgtk("info", "a.qcow2").out) == qemu_img("info", "a.qcow2").out
    ours = json.loads(imgtk("info", "--output=json", "a.qcow2").out)
    theirs = json.loads(qemu_img("info", "--output=json", "a.qcow2").out)
    assert ours["snapshots"] == theirs["snapshots"]


def test_no_reference_is_followed_without_being_asked(folder):
    make_image("base.qcow2", MIB)
    make_image("top.qcow2", None, backing="base.qcow2", backing_fmt="qcow2")
    os.remove("base.qcow2")
    assert "backing file: base.qcow2\n" in imgtk("info", "top.qcow2").out
    imgtk_fails("info", "--backing-chain", "top.qcow2", match="base.qcow2")


def test_names_cannot_write_to_the_terminal(folder):
    name = "a\x1b[31m\n.raw"
    make_raw(name, KIB)
    out = imgtk("info", name).out
    assert out.startswith("image: a?[31m?.raw\n")
    assert json.loads(imgtk("info", "--output=json", name).out)["filename"] == name


def test_nor_can_those_of_eight_bits_or_of_direction(folder):
    """CSI as one character, in UTF-8 and as a byte, and what turns the direction of writing; other names stay."""
    name, shown = b"a\xc2\x9b31m\x9b\xe2\x80\xae\xc3\xa4\xe4.raw", b"a?31m??\xc3\xa4\xe4.raw"
    make_raw(os.fsdecode(name), KIB, [(0, b"data")])
    for words, where in ((["info"], "out"), (["map", "-f", "raw"], "out"), (["map", "-f", "qcow2"], "err")):
        done = subprocess.run([IMGTK, *words, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        text = done.stdout if where == "out" else done.stderr
        assert shown in text and name not in text and b"\x9b" not in text, done
    overlay = make_image("o.qcow2", MIB)
    qemu_img("rebase", "-u", "-F", "raw", "-b", "b\u009b2J", overlay)
    assert "backing file: b?2J\n" in imgtk("info", overlay).out
    assert "b?2J" in imgtk_fails("map", overlay, match="b.2J").err


def test_a_name_that_is_no_utf8(folder):
    name = b"a\xff.raw"
    with open(name, "wb") as file:
        file.truncate(KIB)
    document = json.loads(imgtk("info", "--output=json", os.fsdecode(name)).out)
    assert document["filename"] == "a\ufffd.raw"


def test_image_opts(folder):
    make_image("a,b.qcow2", MIB)
    ours = imgtk("info", "--image-opts", "driver=qcow2,file.driver=file,file.filename=a,,b.qcow2").out
    assert ours == imgtk("info", "-f", "qcow2", "a,b.qcow2").out
    make_raw("a.raw", MIB)
    part = json.loads(imgtk("info", "--image-opts", "--output=json",
                            "driver=raw,offset=512k,size=64k,file.filename=a.raw").out)
    assert part["virtual-size"] == 64 * KIB


@pytest.mark.parametrize("arguments, message", [
    (["driver=qcow2"], "file.filename is missing"),
    (["qcow2"], "not of the form key=value"),
    (["driver=raw,file.driver=nbd,file.filename=a"], "file.driver=nbd"),
    (["driver=raw,file.filename=a.raw,nonsense=1"], "nonsense"),
    (["-f", "raw", "driver=raw,file.filename=a.raw"], "mutually exclusive"),
])
def test_image_opts_mistakes(folder, arguments, message):
    make_raw("a.raw", MIB)
    result = imgtk("info", "--image-opts", *arguments, code=1)
    assert message in result.err.splitlines()[0]

"""Chains: how deep, in circles, by what names, and which files an image may name."""
import json
import os
import shutil
import struct

import pytest
from imgtk_test import (MIB, assert_same_bytes, imgtk, imgtk_fails, make_image, make_raw, qemu_img,
                        qemu_io)

CANARY_AT_0 = [(0, b"CANARY" * 1000)]


def depth_of(image, *words):
    return len(json.loads(imgtk("info", "--backing-chain", "--output=json", *words, image).out))


def overlay(path, backing, fmt="qcow2", size=MIB, writes=()):
    """An overlay that names `backing` just so, whether it exists or not."""
    words = ["create", "-q", "-u", "-f", "qcow2", "-b", backing] + (["-F", fmt] if fmt else [])
    path.parent.mkdir(parents=True, exist_ok=True)
    if fmt:
        qemu_img(*words, path, size)
    else:
        qemu_img("create", "-q", "-f", "qcow2", path, size)
        name_backing(path, str(backing))
    if writes:
        qemu_io(path, *writes, fmt="qcow2")
    return path


def name_backing(path, name):
    """Puts a backing file's name into a qcow2 image, as older versions of qemu-img did: without its format."""
    with open(path, "r+b") as file:
        header = file.read(112)
        start = struct.unpack_from(">I", header, 100)[0]
        # An empty list of extensions, and the name behind it.
        file.seek(start)
        file.write(bytes(8) + name.encode())
        file.seek(8)
        file.write(struct.pack(">QI", start + 8, len(name.encode())))


def read_start(image, folder, *words, length=6):
    imgtk("convert", "-O", "raw", *words, image, folder / "out.raw")
    with open(folder / "out.raw", "rb") as file:
        return file.read(length)


# ---- Depth and circles ---------------------------------------------------------

@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A chain of 201 layers, 000.qcow2 at the bottom; each writes 512 bytes of its own number."""
    folder = tmp_path_factory.mktemp("deep")
    make_image(folder / "000.qcow2", MIB, options="cluster_size=512", writes=["write -P 1 0 512"])
    template = make_image(folder / "template", MIB, options="cluster_size=512")
    for number in range(1, 201):
        path = folder / f"{number:03}.qcow2"
        shutil.copyfile(template, path)
        with open(path, "r+b") as file:
            header = file.read(112)
            start = struct.unpack_from(">I", header, 100)[0]
            file.seek(start)
            file.write(struct.pack(">II", 0xE2792ACA, 5) + b"qcow2\0\0\0" + bytes(8) + b"%03d.qcow2" % (number - 1))
            file.seek(8)
            file.write(struct.pack(">QI", start + 24, 9))
    template.unlink()
    return folder


def test_two_hundred_layers_are_read(deep, tmp_path):
    assert read_start(deep / "199.qcow2", tmp_path, length=3) == b"\1\1\1"
    rows = json.loads(imgtk("map", "--output=json", deep / "199.qcow2").out)
    assert rows[0]["depth"] == 199 and rows[0]["length"] == 512
    assert depth_of(deep / "199.qcow2") == 200


def test_one_more_is_refused_and_the_limit_named(deep, tmp_path):
    for words in (["map"], ["convert", "-O", "raw"]):
        target = [tmp_path / "out"] if words[0] == "convert" else []
        imgtk_fails(*words, deep / "200.qcow2", *target, match="200 layers|limit (is|of) 200|200")
    assert not (tmp_path / "out").exists()
    imgtk("info", deep / "200.qcow2")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_is_found(tmp_path, length):
    for number in range(length):
        overlay(tmp_path / f"{number}", f"{(number + 1) % length}")
    imgtk_fails("map", tmp_path / "0", match="loop|circle|itself|already", timeout=20)
    imgtk_fails("convert", "-O", "raw", tmp_path / "0", tmp_path / "out", timeout=20)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_circle_through_a_link_is_found(tmp_path, link):
    overlay(tmp_path / "one", "two")
    overlay(tmp_path / "two", "other")
    link(tmp_path / "one", tmp_path / "other")
    imgtk_fails("map", tmp_path / "one", match="loop|circle|itself|already", timeout=20)


def test_one_base_under_two_names_is_no_circle(tmp_path):
    make_image(tmp_path / "base", MIB, writes=["write -P 67 0 64k"])
    overlay(tmp_path / "top", "base")
    assert read_start(tmp_path / "top", tmp_path) == b"CCCCCC"


# ---- Names ---------------------------------------------------------------------

def test_a_relative_name_counts_from_the_overlay(tmp_path):
    (tmp_path / "images").mkdir()
    make_raw(tmp_path / "images/base", MIB, CANARY_AT_0)
    overlay(tmp_path / "images/top", "base", "raw")
    assert read_start(tmp_path / "images/top", tmp_path) == b"CANARY"
    imgtk("map", "images/top", cwd=tmp_path)
    imgtk("map", "../images/top", cwd=tmp_path / "images")


def test_through_a_link_a_relative_name_counts_from_the_link(tmp_path):
    """As qemu-img does it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    make_raw(tmp_path / "there/base", MIB, [(0, b"there!")])
    make_raw(tmp_path / "here/base", MIB, [(0, b"here!!")])
    overlay(tmp_path / "there/top", "base", "raw")
    (tmp_path / "here/top").symlink_to("../there/top")
    assert read_start(tmp_path / "here/top", tmp_path) == b"here!!"
    qemu_img("convert", "-O", "raw", tmp_path / "here/top", tmp_path / "theirs.raw")
    assert_same_bytes(tmp_path / "out.raw", tmp_path / "theirs.raw")


def test_names_in_a_deeper_folder(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    make_raw(tmp_path / "a/b/base", MIB, CANARY_AT_0)
    overlay(tmp_path / "a/middle", "b/base", "raw")
    overlay(tmp_path / "top", "a/middle")
    assert read_start(tmp_path / "top", tmp_path) == b"CANARY"


def test_a_missing_backing_file_is_named(tmp_path):
    overlay(tmp_path / "top", "gone")
    imgtk_fails("map", tmp_path / "top", match="gone.*No such file")
    imgtk("info", tmp_path / "top")


# ---- What an image may name ----------------------------------------------------

@pytest.fixture
def folders(tmp_path):
    """A canary outside the folder of the images, and one inside."""
    (tmp_path / "images").mkdir()
    (tmp_path / "secret").mkdir()
    make_raw(tmp_path / "secret/canary", MIB, CANARY_AT_0)
    make_raw(tmp_path / "images/inside", MIB, CANARY_AT_0)
    return tmp_path


ESCAPES = ["../secret/canary", "{}/secret/canary", "link", "folder/canary", "./../images/../secret/canary"]


@pytest.mark.parametrize("name", ESCAPES)
def test_what_lies_outside_is_refused(folders, name):
    (folders / "images/link").symlink_to(folders / "secret/canary")
    (folders / "images/folder").symlink_to("../secret")
    top = overlay(folders / "images/top", name.format(folders), "raw")
    for words in (["convert", "-O", "raw", top, folders / "out"], ["map", top]):
        result = imgtk_fails(*words, match="--references|--allow-dir")
        assert "CANARY" not in result.out + result.err
    assert not (folders / "out").exists()
    info = imgtk("info", top)
    assert "CANARY" not in info.out
    assert read_start(top, folders, "--allow-dir", folders / "secret") == b"CANARY"
    assert read_start(top, folders, "--references=any") == b"CANARY"
    imgtk_fails("map", "--references=none", top)


def test_what_lies_beneath_is_allowed(folders):
    top = overlay(folders / "images/top", "inside", "raw")
    assert read_start(top, folders) == b"CANARY"
    imgtk_fails("map", "--references=none", top, match="inside.*--references|--references.*inside")


def test_special_files_are_no_backing_files(folders):
    os.mkfifo(folders / "images/fifo")
    for name in ("fifo", "/dev/zero", "."):
        top = overlay(folders / "images/top", name, "raw")
        imgtk_fails("map", top, timeout=20)
        imgtk_fails("map", "--references=any", top, timeout=20)


@pytest.mark.parametrize("name", ["nbd://localhost:1/x", "http://localhost/x", "fd:0", "-", "null:", "json:{}",
                                  "file:inside", "rbd:x"])
def test_addresses_are_no_backing_files(folders, name):
    (folders / "images/top").unlink(missing_ok=True)
    qemu_img("create", "-q", "-f", "qcow2", folders / "images/top", MIB)
    name_backing(folders / "images/top", name)
    imgtk_fails("map", "--backing-format=raw", folders / "images/top", timeout=20, input=b"")


def test_a_data_file_outside_is_refused(folders):
    image = folders / "images/image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={folders}/secret/data,data_file_raw=on", image, MIB)
    qemu_io(image, "write -P 67 0 64k", fmt="qcow2")
    imgtk_fails("convert", "-O", "raw", image, folders / "out", match="data")
    assert not (folders / "out").exists()
    assert read_start(image, folders, "--references=any") == b"CCCCCC"


# ---- Formats that are not recorded ---------------------------------------------

def test_an_unrecorded_format_is_never_guessed_raw(folders):
    top = overlay(folders / "images/top", "inside", None)
    imgtk_fails("convert", "-O", "raw", top, folders / "out", match="--backing-format")
    assert not (folders / "out").exists()
    assert read_start(top, folders, "--backing-format=raw") == b"CANARY"


def test_an_unrecorded_format_that_shows_is_found_out(folders):
    make_image(folders / "images/base", MIB, writes=["write -P 67 0 64k"])
    top = overlay(folders / "images/top", "base", None)
    assert read_start(top, folders) == b"CCCCCC"


def test_a_recorded_format_is_not_probed(folders):
    """A guest that writes an image's header into its raw disk gains nothing by it."""
    inner = overlay(folders / "images/inner", f"{folders}/secret/canary", "raw")
    shutil.copyfile(inner, folders / "images/base")
    top = overlay(folders / "images/top", "base", "raw")
    assert read_start(top, folders, length=4) == b"QFI\xfb"

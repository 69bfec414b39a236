"""`nbdkit imgtk`: what clients get of images that it serves. nbdkit itself is not built with the sanitizers."""
import json
import os
import re
import struct

import pytest

from imgtk_test import (BUILD, KIB, MIB, assert_same_bytes, compressible, execute, imgtk, imgtk_fails, make_image,
                        make_raw, missing, qemu_img, qemu_io, tool)

PLUGIN = BUILD / "nbdkit/nbdkit-imgtk-plugin.so"
SIZE = 16 * MIB

pytestmark = pytest.mark.unsanitized


@pytest.fixture(scope="session", autouse=True)
def plugin():
    if not PLUGIN.exists():
        missing("the plugin is not built (nbdkit-plugin-dev)")


@pytest.fixture
def disk(tmp_path):
    return make_raw(tmp_path / "disk.raw", SIZE, [(0, compressible(MIB)), (5 * MIB, os.urandom(2 * MIB)),
                                                  (SIZE - 64 * KIB, b"end" * 1000)])


@pytest.fixture
def serve_image(nbdkit):
    """serve_image(*parameters): the URI of the image's disk."""
    return lambda *parameters: nbdkit(PLUGIN, *parameters)


def make(tmp_path, fmt, disk):
    """The disk as an image, of a chain where the format has such; its path."""
    if fmt == "raw":
        return disk
    image = tmp_path / f"image.{fmt}"
    if fmt == "chain":
        qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "base.qcow2")
        make_image(image, None, backing=tmp_path / "base.qcow2", backing_fmt="qcow2",
                   writes=["write -P 7 3M 128k", "write -z 5M 1M"])
        qemu_img("convert", "-f", "qcow2", "-O", "raw", image, disk)
        return image
    options = ["-o", "force_size=on"] if fmt == "vpc" else []
    qemu_img("convert", "-f", "raw", "-O", fmt, *options, disk, image)
    return image


def zeroes(rows):
    """The ranges that read as zeroes, of (offset, length, whether it does), those that touch joined."""
    joined = []
    for offset, length, zero in rows:
        if zero and joined and joined[-1][1] == offset:
            joined[-1][1] = offset + length
        elif zero:
            joined.append([offset, offset + length])
    return joined


def told_by_server(uri):
    rows = json.loads(execute([tool("nbdinfo"), "--map", "--json", uri]).out)
    assert rows[-1]["offset"] + rows[-1]["length"] == SIZE
    return zeroes((row["offset"], row["length"], bool(row["type"] & 2)) for row in rows)


def told_by_map(text):
    return zeroes((row["start"], row["length"], row["zero"]) for row in json.loads(text))


@pytest.mark.parametrize("fmt", ["raw", "chain", "vmdk", "vhdx", "vdi", "vpc"])
def test_clients_get_the_disk(tmp_path, disk, serve_image, fmt):
    image = make(tmp_path, fmt, disk)
    uri = serve_image(image)
    execute([tool("nbdcopy"), uri, tmp_path / "nbdcopy"])
    qemu_img("convert", "-f", "raw", "-O", "raw", uri, tmp_path / "qemu-img")
    imgtk("convert", "-f", "raw", "-O", "raw", uri, tmp_path / "imgtk")
    for client in ["nbdcopy", "qemu-img", "imgtk"]:
        assert_same_bytes(disk, tmp_path / client)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", disk, uri).out
    assert "identical" in imgtk("compare", "-f", "raw", "-F", "raw", disk, uri).out
    check_holes(disk, image, uri)


def check_holes(disk, image, uri):
    """They are all that imgtk maps as zeroes, what the image's file has no blocks for, and nothing that is data."""
    told = told_by_server(uri)
    for start, end in told_by_map(imgtk("map", "--output=json", image).out):
        assert any(first <= start and end <= last for first, last in told), (start, end)
    content = disk.read_bytes()
    assert told and all(not any(content[start:end]) for start, end in told)
    assert told == told_by_map(qemu_img("map", "--output=json", "-f", "raw", uri).out)


def test_reserved_zeroes_are_no_hole(tmp_path, serve_image):
    image = make_image(tmp_path / "image.qcow2", "1M", writes=["write -P 1 0 128k", "write -z 64k 64k"])
    text = execute([tool("nbdinfo"), "--map", serve_image(image)]).out
    assert re.findall(r"(\d+) +(\d+) +(\d) ", text) == [("0", "65536", "0"), ("65536", "65536", "2"),
                                                        ("131072", "917504", "3")]


def test_the_export_is_for_many_readers(tmp_path, disk, nbdkit):
    log = tmp_path / "log"
    image = make(tmp_path, "chain", disk)
    uri = nbdkit("--filter=log", PLUGIN, image, f"logfile={log}")
    about = json.loads(execute([tool("nbdinfo"), "--no-content", "--json", uri]).out)["exports"][0]
    assert about["is_read_only"] and about["can_multi_conn"] and not about["can_cache"] and not about["can_trim"]
    assert about["block_size_minimum"] == 1 and about["block_size_preferred"] == 64 * KIB
    imgtk("convert", "--connections=4", "--requests=16", "--request-size=64k", "-f", "raw", "-O", "raw", uri,
          tmp_path / "copy")
    assert_same_bytes(disk, tmp_path / "copy")
    assert len(set(re.findall(r"connection=(\d+) Read", log.read_text()))) == 4
    imgtk_fails("convert", "-n", "-f", "raw", "-O", "raw", disk, uri, match="the export is read-only")


def run_words(*parameters, run="true"):
    """A server in the background, where no thread goes on that was begun before; `run` is its client."""
    return [tool("nbdkit"), "-U", "-", PLUGIN, *parameters, "--run", run]


def test_an_image_on_another_server(tmp_path, disk):
    image = make(tmp_path, "qcow2", disk)
    inner = f"[ {tool('nbdkit')} file {image} ]"
    execute(run_words(inner, "storage-opts=connections=2", run=f"nbdcopy $uri {tmp_path / 'copy'}"))
    assert_same_bytes(disk, tmp_path / "copy")


def test_parameters_reach_the_image(tmp_path, serve_image):
    base = make_raw(tmp_path / "base.img", 1 * MIB, [(0, b"\x01" * MIB)])
    (tmp_path / "sub").mkdir()
    image = make_image(tmp_path / "sub/image.qcow2", None, backing="../base.img", backing_fmt="raw")
    assert "--allow-dir" in fails(image)
    assert "--references=none" in fails(image, "references=none", f"allow-dir={tmp_path}")
    for parameters in [["references=any"], [f"allow-dir={tmp_path}"]]:
        execute(run_words(image, *parameters))
    qemu_img("snapshot", "-c", "before", image)
    qemu_io(image, "write -P 2 0 1M", fmt="qcow2")
    for parameters, byte in [(["snapshot=before"], 1), ([], 2), (["format=raw"], 0x51)]:
        uri = serve_image(image, "references=any", *parameters)
        execute([tool("nbdcopy"), uri, tmp_path / "copy"])
        assert (tmp_path / "copy").read_bytes()[0] == byte


def test_a_relative_name_is_the_users(tmp_path, disk):
    """nbdkit goes to / before it opens the image for clients."""
    image = make(tmp_path, "chain", disk)
    copy = tmp_path / "copy"
    execute(run_words(image.name, "allow-dir=.", run=f"nbdcopy $uri {copy}"), cwd=tmp_path)
    assert_same_bytes(disk, copy)


def fails(*parameters):
    """The one line with which nbdkit refuses to start."""
    [line] = execute(run_words(*parameters), code=1).err.splitlines()
    return line


@pytest.mark.parametrize("parameters, match", [
    ([], "file=FILE"), (["file=/nonexistent/disk"], "/nonexistent/disk.*No such file"), (["file=-"], "only once"),
    (["file=x", "fromat=raw"], "fromat"), (["file=x", "references=all"], "beneath, any or none"),
    (["file=/dev/null"], "only once"),
])
def test_what_cannot_be_served(parameters, match):
    assert re.search(match, fails(*parameters))


def test_bad_images(tmp_path):
    """One line from the server, where it can be: at its start, else at the request that fails."""
    image = make_image(tmp_path / "image.qcow2", "1M", writes=["write -P 1 0 64k"])
    whole = image.read_bytes()
    image.write_bytes(whole[:4] + struct.pack(">I", 9) + whole[8:])
    assert re.search(r"image\.qcow2: .*version", fails(image, "format=qcow2"))
    image.write_bytes(whole[:-32 * KIB])
    served = execute(run_words(image, run=f"nbdcopy $uri {tmp_path / 'copy'}"), code=1)
    errors = [line for line in served.err.splitlines() if line.startswith("nbdkit: ")]
    assert len(errors) == 1 and re.search(r"image\.qcow2: .*beyond the end of the file", errors[0]), served

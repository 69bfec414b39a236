"""File systems that share blocks: plain data are not copied there."""
import os
import re

import pytest

from imgtk_test import MIB, assert_same_bytes, execute, imgtk, make_raw, missing, qemu_img, tool

KINDS = {"btrfs": (["mkfs.btrfs", "-q"], 128 * MIB), "xfs": (["mkfs.xfs", "-q"], 320 * MIB)}


@pytest.fixture(scope="module", params=KINDS)
def shared(tmp_path_factory, request):
    """A mounted file system that shares blocks, with a raw image in it."""
    words, size = KINDS[request.param]
    base = tmp_path_factory.mktemp(request.param)
    folder = base / "mounted"
    folder.mkdir()
    make_raw(base / "disk", size)
    execute([tool(words[0]), *words[1:], base / "disk"])
    if execute([tool("mount"), "-o", "loop", base / "disk", folder], code=None).code:
        missing(f"{request.param} cannot be mounted")
    try:
        make_raw(folder / "source.raw", 24 * MIB, [(0, os.urandom(4 * MIB)), (9 * MIB, os.urandom(3 * MIB + 4096))])
        qemu_img("convert", "-f", "raw", "-O", "qcow2", folder / "source.raw", folder / "source.qcow2")
        os.sync()
        yield folder
    finally:
        execute([tool("umount"), folder])


def shared_bytes(path):
    """How much of a file shares its blocks with another one."""
    os.sync()
    rows = execute([tool("filefrag"), "-v", "-b1024", path]).out.splitlines()
    return sum(int(re.split(r"[:\s]+", row.strip())[5]) * 1024 for row in rows if "shared" in row)


@pytest.mark.parametrize("source, target", [("raw", "raw"), ("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2"),
                                            ("qcow2", "vdi"), ("raw", "vhdx")])
def test_blocks_are_shared(shared, source, target):
    out = shared / "out"
    try:
        # A checksum changes nothing of that: what is shared is read, and not written.
        line = imgtk("convert", "--checksum", "-f", source, "-O", target, shared / f"source.{source}", out).out
        assert shared_bytes(out) >= 7 * MIB
        assert line.split()[0] == imgtk("checksum", "-f", "raw", shared / "source.raw").out.split()[0]
        imgtk("convert", "-f", target, "-O", "raw", out, shared / "back")
        assert_same_bytes(shared / "source.raw", shared / "back")
        # Copying on request (-S) takes no part of it.
        imgtk("convert", "-S", "4k", "-f", source, "-O", target, shared / f"source.{source}", out)
        assert shared_bytes(out) == 0
    finally:
        for name in (out, shared / "back"):
            name.unlink(missing_ok=True)

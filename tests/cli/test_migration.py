"""The table of docs/migration.md: what qemu-img and nbdcopy do, the command beside it does too."""
import os
import re
import subprocess

import pytest

from imgtk_test import (IMGTK, KIB, MIB, ROOT, Result, check_sanitizers, compressible, digest, environment, imgtk, make_image,
                        make_raw, qemu_img, tool)

ROWS = re.findall(r"(?m)^\| `([^`]+)` \| `(imgtk [^`]+)` \|$", (ROOT / "docs/migration.md").read_text())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The files that the commands are about."""
    folder = tmp_path_factory.mktemp("images")
    make_raw(folder / "disk.raw", 8 * MIB, [(MIB, compressible(300 * KIB)), (5 * MIB, compressible(100 * KIB, 2))])
    qemu_img("convert", "-O", "qcow2", folder / "disk.raw", folder / "disk.qcow2")
    qemu_img("snapshot", "-c", "before", folder / "disk.qcow2")
    qemu_img("convert", "-O", "vpc", folder / "disk.raw", folder / "disk.vhd")
    for name in ("target.raw", "served.raw"):
        make_raw(folder / name, 8 * MIB, [(0, compressible(MIB, 3))])
    make_image(folder / "base.qcow2", 8 * MIB, writes=["write -P 5 0 1M"])
    make_image(folder / "overlay.qcow2", None, backing="base.qcow2", backing_fmt="qcow2", writes=["write -P 6 512k 64k"])
    return folder


def run(line, images, folder):
    """Runs one side of a row where the images that it names are, and base.qcow2."""
    folder.mkdir()
    named = [image for image in images.iterdir() if image.name in f"{line} base.qcow2" or "nbd://" in line]
    subprocess.run(["cp", "--sparse=always", *named, folder], check=True)
    line = re.sub(r"^imgtk ", f"{IMGTK} ", line)
    if "nbd://localhost" in line:
        line = f"nbdkit -U - file served.raw --run '{line.replace('nbd://localhost', '$uri')}'"
    done = subprocess.run(["sh", "-c", line], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    return check_sanitizers(Result([line], done.returncode, done.stdout.decode(), done.stderr.decode()))


def test_there_are_rows():
    assert len(ROWS) > 40 and {row[0].split()[0] for row in ROWS} == {
        "qemu-img", "nbdcopy", "go-qcow2reader-example", "vhd-tool"}


@pytest.mark.slow
@pytest.mark.parametrize("old, new", ROWS, ids=[new for _, new in ROWS])
def test_row(images, tmp_path, old, new):
    ours = run(new, images, tmp_path / "ours")
    assert (ours.code, ours.err) == (0, ""), ours
    if old.split()[0] not in ("qemu-img", "nbdcopy"):
        return
    tool(old.split()[0])
    theirs = run(old, images, tmp_path / "theirs")
    assert theirs.code == 0, theirs
    for name in {*os.listdir(tmp_path / "theirs"), *os.listdir(tmp_path / "ours")}:
        mine, other = tmp_path / "ours" / name, tmp_path / "theirs" / name
        if digest(mine) != digest(other):
            imgtk("compare", mine, other)

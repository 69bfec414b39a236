"""Conversions by eight workers: right bytes, the same file as one worker makes, and nothing for a thread sanitizer."""
import pytest

from imgtk_test import KIB, MIB, assert_same_bytes, compressible, imgtk, make_image, make_raw, qemu_img, qemu_io

pytestmark = pytest.mark.threads
SIZE = 24 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A raw disk with data in pieces of many lengths, some of them zeroes that are written."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    pieces = [(at, compressible(40 * KIB + at // 37 % (600 * KIB), at)) for at in range(0, SIZE - MIB, 1 * MIB)]
    return make_raw(path, SIZE, pieces + [(5 * MIB + 300 * KIB, bytes(500 * KIB))])


@pytest.mark.parametrize("options", ["cluster_size=64k", "cluster_size=4k", "cluster_size=4k,compression_type=zstd"])
@pytest.mark.parametrize("compress", [[], ["-c"]], ids=["plain", "compressed"])
def test_read_qcow2(disk, tmp_path, options, compress):
    image = tmp_path / "image.qcow2"
    qemu_img("convert", *compress, "-f", "raw", "-O", "qcow2", "-o", options, disk, image)
    imgtk("convert", "-m", "8", "-f", "qcow2", "-O", "raw", image, tmp_path / "out")
    assert_same_bytes(disk, tmp_path / "out")


def test_read_a_chain(disk, tmp_path):
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", disk, tmp_path / "base.qcow2")
    names = ["base.qcow2", "middle.qcow2", "top.qcow2"]
    for number, (below, name) in enumerate(zip(names, names[1:]), 1):
        make_image(tmp_path / name, None, backing=below, backing_fmt="qcow2")
        qemu_io(tmp_path / name, *[f"write -P {number} {at * 64}k {number * 4}k" for at in range(3, 300, 7 * number)],
                f"write -z {number}M 1M", fmt="qcow2")
    imgtk("convert", "-m", "8", "-O", "raw", tmp_path / "top.qcow2", tmp_path / "ours")
    qemu_img("convert", "-O", "raw", tmp_path / "top.qcow2", tmp_path / "theirs")
    assert_same_bytes(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("options", [["-O", "qcow2"], ["-c", "-O", "qcow2"],
                                     ["-c", "-O", "qcow2", "-o", "compression_type=zstd,cluster_size=16k"],
                                     ["-O", "raw"], ["-S", "0", "-O", "raw"]], ids=" ".join)
def test_write(disk, tmp_path, options):
    for workers in ["1", "8"]:
        imgtk("convert", "-m", workers, "-f", "raw", *options, disk, tmp_path / workers)
    assert_same_bytes(tmp_path / "1", tmp_path / "8")
    qemu_img("convert", "-f", options[options.index("-O") + 1], "-O", "raw", tmp_path / "8", tmp_path / "back")
    assert_same_bytes(disk, tmp_path / "back")


def test_write_to_a_pipe(disk, tmp_path):
    result = imgtk("convert", "-m", "8", "-c", "-f", "raw", "-O", "qcow2", disk, "-")
    (tmp_path / "piped.qcow2").write_bytes(result.raw)
    qemu_img("check", tmp_path / "piped.qcow2")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "piped.qcow2", tmp_path / "back")
    assert_same_bytes(disk, tmp_path / "back")

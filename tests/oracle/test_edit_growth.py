"""resize --preallocation: what a larger disk adds has its space, and reads as zeroes."""
import json
import shutil

import pytest
from imgtk_test import KIB, MIB, digest, imgtk, imgtk_fails, make_image, make_raw, qemu_img, qemu_io

LAYOUTS = {"plain": "", "v2": "compat=0.10", "tiny": "cluster_size=512",
           "subclusters": "extended_l2=on,cluster_size=16k", "bits1": "refcount_bits=1"}
SIZE = MIB + 512


def assert_sound(image):
    qemu_img("check", "-f", "qcow2", image)
    imgtk("check", "-q", image)


def unwritten(image):
    """Where the map shows nothing that is allocated in the image itself."""
    rows = json.loads(qemu_img("map", "-f", "qcow2", "--output=json", image).out)
    return [(row["start"], row["length"]) for row in rows if row["depth"] > 0 or "offset" not in row]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_growth(tmp_path, layout, mode):
    """Twice, the second time by less than a cluster, so that the last cluster goes on where it was."""
    image = make_image(tmp_path / "image", SIZE, options=LAYOUTS[layout], writes=["write -P 1 0 300k"])
    disk = make_raw(tmp_path / "disk", SIZE, [(0, b"\1" * 300 * KIB)])
    for size in ("5M", "+1k"):
        assert imgtk("resize", f"--preallocation={mode}", image, size).out == "Image resized.\n"
        qemu_img("resize", "-f", "raw", disk, size)
        assert_sound(image)
        assert "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", image, disk).out
        assert all(start + length <= SIZE for start, length in unwritten(image)), unwritten(image)
    if mode != "metadata":
        assert image.stat().st_blocks * 512 >= 4 * MIB
    length = image.stat().st_size
    qemu_io(image, "write -P 2 1500k 3M", "read -P 1 0 300k", fmt="qcow2")
    assert_sound(image)
    assert image.stat().st_size == length


@pytest.mark.parametrize("layout", ["plain", "v2", "subclusters"])
def test_growth_over_a_longer_backing_file(tmp_path, layout):
    make_image(tmp_path / "base", 3 * MIB, writes=["write -P 1 0 3M"])
    image = make_image(tmp_path / "image", SIZE, options=LAYOUTS[layout], backing="base", backing_fmt="qcow2")
    disk = tmp_path / "disk"
    qemu_img("convert", "-O", "raw", image, disk)
    imgtk("resize", "--preallocation=metadata", image, "4M")
    qemu_img("resize", "-f", "raw", disk, "4M")
    assert_sound(image)
    assert "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", image, disk).out


def test_places_that_were_used_before(tmp_path):
    """Free clusters in the middle of the file hold old bytes."""
    image = make_image(tmp_path / "image", 4 * MIB, writes=["write -P 1 0 4M"])
    qemu_img("snapshot", "-c", "s", image)
    qemu_io(image, "write -P 2 1M 2M", fmt="qcow2")
    qemu_img("snapshot", "-d", "s", image)
    for mode in ("metadata", "falloc"):
        size = image.stat().st_size
        imgtk("resize", f"--preallocation={mode}", image, "+512k")
        assert image.stat().st_size == size
        assert_sound(image)
    qemu_io(image, "read -P 0 4M 1M", "read -P 1 3M 1M", fmt="qcow2")


@pytest.mark.parametrize("raw", ["on", "off"])
@pytest.mark.parametrize("mode", ["off", "metadata", "full"])
def test_external_data_file(tmp_path, raw, mode):
    """A raw one gets places in any case: what somebody writes into it is read."""
    image = make_image(tmp_path / "image", SIZE, options=f"data_file={tmp_path}/data,data_file_raw={raw}")
    imgtk("resize", f"--preallocation={mode}", image, "3M")
    data = tmp_path / "data"
    if raw == "on":
        assert data.stat().st_size == 3 * MIB
        with open(data, "r+b") as file:
            file.seek(2 * MIB)
            file.write(b"x" * 4096)
        qemu_io(image, "read -P 0x78 2M 4k", fmt="qcow2")
    if mode == "full":
        assert data.stat().st_blocks * 512 >= 2 * MIB - 64 * KIB
    assert_sound(image)


def test_shrinking_moves_tables_to_the_front(tmp_path):
    """An image whose L2 table was before the data, not behind it."""
    image = make_image(tmp_path / "image", 16 * MIB, options="preallocation=metadata", writes=["write -P 1 0 16M"])
    imgtk("resize", "--shrink", image, "2M")
    assert_sound(image)
    assert image.stat().st_size <= 3 * MIB
    qemu_io(image, "read -P 1 0 2M", fmt="qcow2")


# ---- raw ------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_raw(tmp_path, mode):
    disk = make_raw(tmp_path / "disk", SIZE, [(0, b"x" * SIZE)])
    shutil.copy(disk, tmp_path / "other")
    imgtk("resize", "-f", "raw", f"--preallocation={mode}", disk, "4M")
    qemu_img("resize", "-f", "raw", f"--preallocation={mode}", tmp_path / "other", "4M")
    assert digest(disk) == digest(tmp_path / "other")
    assert disk.stat().st_blocks >= (tmp_path / "other").stat().st_blocks > 3 * MIB // 512


def test_what_cannot_be_preallocated(tmp_path):
    disk = make_raw(tmp_path / "disk", 2 * MIB)
    imgtk_fails("resize", "-f", "raw", "--preallocation=metadata", disk, "4M", match="use falloc or full")
    assert disk.stat().st_size == 2 * MIB
    image = make_image(tmp_path / "image", 2 * MIB)
    before = digest(image)
    for words in (("--shrink", image, "1M"), (image, "2M"), (image, "+0")):
        imgtk_fails("resize", "--preallocation=full", *words, match="can only be used for growing images")
    imgtk_fails("resize", "--preallocation=some", image, "4M", match="Invalid preallocation mode 'some'")
    assert digest(image) == before

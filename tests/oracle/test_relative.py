"""--relative-to: only what differs from another image, told by chain where they are related, by content where not."""
import json
import random

import pytest

from imgtk_test import KIB, MIB, imgtk, imgtk_fails, qemu_img, qemu_io

SIZE = 8 * MIB


def rows(*words):
    return [(row["start"], row["length"]) for row in json.loads(imgtk("map", "--output=json", *words).out)]


def raw_of(path, folder):
    imgtk("convert", "-O", "raw", path, folder / "flat.raw")
    return (folder / "flat.raw").read_bytes()


@pytest.fixture
def pair(tmp_path):
    """A base with data, and an overlay that changes, zeroes and repeats some of it."""
    base, overlay = tmp_path / "base.qcow2", tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, SIZE)
    qemu_io(base, "write -P 1 0 2M", "write -P 2 4M 1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)
    qemu_io(overlay, "write -P 9 64k 128k", "write -z 1M 192k", "write -P 2 4M 64k", "write -P 7 6M 64k", "write -z 7M 1M")
    return base, overlay


def test_related_images_are_told_by_their_chain(pair):
    base, overlay = pair
    found = rows("--relative-to", base, overlay)
    # What was written counts, the same bytes too; zeroes over nothing do not.
    assert found == [(64 * KIB, 128 * KIB), (MIB, 192 * KIB), (4 * MIB, 64 * KIB), (6 * MIB, 64 * KIB)]
    assert rows("--relative-to", overlay, base)[:2] == [(64 * KIB, 128 * KIB), (MIB, 192 * KIB)]
    assert rows("--relative-to", base, base) == []


def test_strangers_are_told_by_their_content(pair, tmp_path):
    base, overlay = pair
    imgtk("convert", "-O", "vdi", overlay, tmp_path / "copy.vdi")
    found = rows("--relative-to", base, tmp_path / "copy.vdi")
    assert [row for row in found] == [(64 * KIB, 128 * KIB), (MIB, 192 * KIB), (6 * MIB, 64 * KIB)]


@pytest.mark.parametrize("form", ["raw", "qcow2", "vpc", "vhdx", "vdi", "vmdk"])
def test_differences_in_place(pair, tmp_path, form):
    """Differences written over a copy of the base make it the overlay's disk."""
    base, overlay = pair
    target = tmp_path / "target.raw"
    imgtk("convert", "-O", "raw", base, target)
    imgtk("convert", "-n", "-O", "raw", "--relative-to", base, overlay, target)
    assert target.read_bytes() == raw_of(overlay, tmp_path)
    # As a new image of any format: its own layer holds the differences and not much more.
    options = ["-o", "force_size=on"] if form == "vpc" else []
    imgtk("convert", "-O", form, *options, "--relative-to", base, overlay, tmp_path / "difference")
    ours, theirs = raw_of(tmp_path / "difference", tmp_path), raw_of(overlay, tmp_path)
    for start, length in [(64 * KIB, 128 * KIB), (MIB, 192 * KIB), (6 * MIB, 64 * KIB)]:
        assert ours[start:start + length] == theirs[start:start + length]
    assert not any(ours[5 * MIB:6 * MIB])


def test_random_differences_of_content(tmp_path):
    maker = random.Random(11)
    base = bytearray(maker.randbytes(3 * MIB + 512))
    other = bytearray(base)
    for _ in range(40):
        at = maker.randrange(len(other))
        other[at] ^= 1 + maker.randrange(255)
    (tmp_path / "a.raw").write_bytes(base)
    (tmp_path / "b.raw").write_bytes(other)
    expected = sorted({at // 4096 for at in range(len(base)) if base[at] != other[at]})
    found = rows("-f", "raw", "--relative-format", "raw", "--relative-to", tmp_path / "a.raw", tmp_path / "b.raw")
    covered = [block for start, length in found for block in range(start // 4096, -(-(start + length) // 4096))]
    assert covered == expected
    imgtk("convert", "-n", "-f", "raw", "-O", "raw", "--relative-format", "raw", "--relative-to", tmp_path / "a.raw",
          tmp_path / "b.raw", tmp_path / "a.raw", code=1)
    (tmp_path / "c.raw").write_bytes(base)
    imgtk("convert", "-n", "-f", "raw", "-O", "raw", "--relative-format", "raw", "--relative-to", tmp_path / "a.raw",
          tmp_path / "b.raw", tmp_path / "c.raw")
    assert (tmp_path / "c.raw").read_bytes() == other


def test_a_snapshot_is_not_its_file(tmp_path):
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, MIB)
    qemu_io(image, "write -P 1 0 64k")
    qemu_img("snapshot", "-c", "before", image)
    qemu_io(image, "write -P 2 0 64k")
    imgtk("convert", "-O", "qcow2", "-l", "before", "--relative-to", image, image, tmp_path / "difference.qcow2")
    assert raw_of(tmp_path / "difference.qcow2", tmp_path)[:64 * KIB] == b"\1" * (64 * KIB)


def test_contradictions_are_refused(pair, tmp_path):
    base, overlay = pair
    assert "cannot be combined" in imgtk("map", "--output=intervals", "--relative-to", base, overlay, code=1).err
    imgtk_fails("convert", "-c", "-O", "qcow2", "--relative-to", base, overlay, tmp_path / "o", match="cannot be combined")
    imgtk_fails("convert", "-B", base, "-F", "qcow2", "-O", "qcow2", "--relative-to", base, overlay, tmp_path / "o",
                match="cannot be combined")
    assert not (tmp_path / "o").exists()

"""Targets that are there already, devices, and pipes at either end."""
import os
import random
import subprocess

import pytest
from imgtk_test import (IMGTK, KIB, MIB, assert_same_bytes, compressible, digest, environment, execute, imgtk,
                        imgtk_fails, make_image, make_raw, missing, qemu_img, tool)


def content(size, seed=1):
    rng = random.Random(seed)
    return [(0, compressible(min(size, 200 * KIB), seed)), (size // 3, rng.randbytes(size // 4)),
            (size - 700, b"e" * 700)]


@pytest.fixture
def source(tmp_path):
    return make_raw(tmp_path / "source.raw", 3 * MIB + 512, content(3 * MIB + 512))


# ---- Existing files ------------------------------------------------------------

def test_a_larger_file_keeps_its_tail(tmp_path, source):
    target = make_raw(tmp_path / "target", 5 * MIB, [(0, b"\xaa" * 5 * MIB)])
    inode = os.stat(target).st_ino
    imgtk("convert", "-n", "-O", "raw", source, target)
    got, expected = target.read_bytes(), source.read_bytes()
    assert got[:len(expected)] == expected
    assert got[len(expected):] == b"\xaa" * (5 * MIB - len(expected))
    assert os.stat(target).st_ino == inode


def test_the_start_of_the_file_is_as_qemu_img_writes_it(tmp_path, source):
    ours = make_raw(tmp_path / "ours", 5 * MIB, [(0, b"\xaa" * 5 * MIB)])
    theirs = make_raw(tmp_path / "theirs", 5 * MIB, [(0, b"\xaa" * 5 * MIB)])
    imgtk("convert", "-n", "-O", "raw", source, ours)
    qemu_img("convert", "-n", "-O", "raw", source, theirs)
    assert_same_bytes(ours, theirs)


@pytest.mark.parametrize("size", [0, 512, 3 * MIB])
def test_too_small_is_an_error_before_the_first_byte(tmp_path, source, size):
    target = make_raw(tmp_path / "target", size, [(0, b"\xaa" * size)])
    before = digest(target)
    imgtk_fails("convert", "-n", "-O", "raw", source, target, match=str(size))
    assert digest(target) == before and os.path.getsize(target) == size


def test_a_target_that_is_not_there(tmp_path, source):
    imgtk_fails("convert", "-n", "-O", "raw", source, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_target_is_zero_leaves_holes_alone(tmp_path, source):
    target = make_raw(tmp_path / "target", 4 * MIB)
    imgtk("convert", "-n", "--target-is-zero", "-O", "raw", source, target)
    assert target.read_bytes() == source.read_bytes() + bytes(4 * MIB - os.path.getsize(source))
    assert os.stat(target).st_blocks * 512 < 2 * MIB
    imgtk_fails("convert", "--target-is-zero", "-O", "raw", source, target, match="-n")


def test_zeroes_over_old_data(tmp_path):
    """Every way in which zeroes are made, of every length, in a file that is full of something else."""
    rng = random.Random(3)
    source = make_raw(tmp_path / "source", 4 * MIB)
    with open(source, "r+b") as file:
        offset = 0
        while offset < 4 * MIB - 512:
            file.seek(offset)
            file.write(rng.randbytes(rng.choice((1, 512, 5000))))
            offset += rng.choice((512, 4096, 5120, 70 * KIB, 300 * KIB))
    target = make_raw(tmp_path / "target", 4 * MIB, [(0, b"\xaa" * 4 * MIB)])
    for flags in ([], ["-S", "0"], ["-S", "1M"], ["-m", "4"]):
        imgtk("convert", "-n", *flags, "-O", "raw", source, target)
        assert_same_bytes(source, target)


def test_existing_qcow2_becomes_another_one(tmp_path, source):
    target = make_image(tmp_path / "target", os.path.getsize(source), writes=["write -P 9 0 3M"])
    imgtk("convert", "-n", "-O", "qcow2", source, target)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, target).out
    qemu_img("check", target)


# ---- Devices -------------------------------------------------------------------

@pytest.fixture
def loop(tmp_path):
    """Attaches a file full of 0xAA to a loop device."""
    attached = []

    def attach(size, sector=512):
        backing = make_raw(tmp_path / f"disk{len(attached)}", size, [(0, b"\xaa" * size)])
        command = [tool("losetup"), "-f", "--show", "-b", str(sector), backing]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            missing(f"no loop device: {done.stderr.strip()}")
        attached.append(done.stdout.strip())
        return attached[-1]

    yield attach
    for device in attached:
        execute([tool("losetup"), "-d", device])


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("flags", [[], ["-S", "0"], ["-c"]])
def test_block_device(tmp_path, source, loop, sector, flags):
    device = loop(5 * MIB, sector)
    if flags == ["-c"]:
        imgtk("convert", "-n", "-c", "-O", "qcow2", source, device)
        assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, device).out
        return
    imgtk("convert", "-n", *flags, "-O", "raw", source, device)
    with open(device, "rb") as file:
        got = file.read()
    size = os.path.getsize(source)
    assert got[:size] == source.read_bytes()
    assert got[size:] == b"\xaa" * (5 * MIB - size)


def test_block_device_that_is_too_small(source, loop):
    device = loop(2 * MIB)
    imgtk_fails("convert", "-n", "-O", "raw", source, device, match=str(2 * MIB))
    with open(device, "rb") as file:
        assert file.read() == b"\xaa" * 2 * MIB


@pytest.mark.parametrize("form", ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"])
def test_block_device_is_no_descriptor(source, loop, form):
    device = loop(5 * MIB)
    imgtk_fails("convert", "-n", "-O", "vmdk", "-o", f"subformat={form}", source, device, match="it cannot be a device")
    with open(device, "rb") as file:
        assert file.read() == b"\xaa" * 5 * MIB


def test_existing_image_is_not_lost(tmp_path, source):
    """-n makes an image anew: not where snapshots, or a disk of another size, would go with the old one."""
    target = tmp_path / "target.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", target, 99 * MIB)
    imgtk_fails("convert", "-n", "-O", "qcow2", source, target, match="its disk has 103809024 bytes")
    qemu_img("create", "-q", "-f", "qcow2", target, os.path.getsize(source))
    qemu_img("snapshot", "-c", "before", target)
    old = target.read_bytes()
    imgtk_fails("convert", "-n", "-O", "qcow2", source, target, match="snapshots")
    assert target.read_bytes() == old
    qemu_img("create", "-q", "-f", "qcow2", target, os.path.getsize(source))
    imgtk("convert", "-n", "-O", "qcow2", source, target)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, target).out


@pytest.mark.parametrize("form", ["qcow2", "vdi", "vhdx", "vpc"])
def test_block_device_that_is_too_small_for_the_image(source, loop, form):
    """How large the image will be follows from its plan, so not one byte of the device is lost."""
    device = loop(MIB // 2)
    with open(device, "rb") as file:
        before = file.read()
    imgtk_fails("convert", "-n", "-O", form, source, device, match="needs")
    with open(device, "rb") as file:
        assert file.read() == before


def test_block_device_as_source(tmp_path, loop):
    device = loop(2 * MIB)
    imgtk("convert", "-f", "raw", "-O", "raw", device, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"\xaa" * 2 * MIB


# ---- Pipes ---------------------------------------------------------------------

def convert_to_pipe(target, *words):
    with open(target, "wb") as out:
        first = subprocess.Popen([IMGTK, "convert", *map(str, words), "-"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=environment())
        second = subprocess.run(["cat"], stdin=first.stdout, stdout=out, check=True)
        err = first.communicate()[1]
    assert first.returncode == 0 and second.returncode == 0, err


@pytest.mark.parametrize("flags", [["-O", "raw"], ["-O", "qcow2"], ["-c", "-O", "qcow2"],
                                   ["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
                                   ["-O", "qcow2", "-o", "cluster_size=4k,extended_l2=off"]])
@pytest.mark.parametrize("size", [512, MIB, 9 * MIB + 512])
def test_to_a_pipe(tmp_path, flags, size):
    source = make_raw(tmp_path / "source.raw", size, [(0, b"a" * 512)] if size < MIB else content(size))
    convert_to_pipe(tmp_path / "out", *flags, source)
    fmt = "raw" if "raw" in flags else "qcow2"
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", fmt, source, tmp_path / "out").out
    if fmt == "qcow2":
        qemu_img("check", tmp_path / "out")


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_from_a_pipe(tmp_path, source, fmt, target):
    qemu_img("convert", "-f", "raw", "-O", fmt, source, tmp_path / "image")
    with open(tmp_path / "image", "rb") as file:
        first = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        done = subprocess.run([IMGTK, "convert", "-f", fmt, "-O", target, "-", tmp_path / "out"], stdin=first.stdout,
                              stderr=subprocess.PIPE, env=environment(), check=False)
        first.stdout.close()
        first.wait()
    assert done.returncode == 0, done.stderr
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", target, source, tmp_path / "out").out


@pytest.mark.parametrize("words, match", [
    (["-O", "qcow2", "-o", "preallocation=full"], "prealloc"),
    (["-O", "qcow2", "-o", "data_file=d,data_file_raw=on"], "data file"),
    (["-O", "vmdk", "-o", "subformat=monolithicFlat"], "monolithicFlat|pipe"),
])
def test_what_cannot_stream_is_refused_by_name(tmp_path, source, words, match):
    result = imgtk_fails("convert", *words, source, "-", match=match, cwd=tmp_path)
    assert result.out == ""
    assert sorted(os.listdir(tmp_path)) == ["source.raw"]


def test_a_pipe_that_ends_early_leaves_nothing(tmp_path):
    source = make_image(tmp_path / "image", 4 * MIB, writes=["write -P 5 0 3M"])
    half = source.read_bytes()[:MIB]
    imgtk_fails("convert", "-f", "qcow2", "-O", "raw", "-", tmp_path / "out", input=half)
    assert not (tmp_path / "out").exists()

"""Sources that come through a pipe: read as they come where their tables come first, else by way of a temporary file."""
import os
import subprocess

import pytest

from imgtk_test import (IMGTK, MIB, assert_same_bytes, compressible, environment, make_image, make_raw,
                        peak_memory, qemu_img)

NOWHERE = "/nonexistent"  # as TMPDIR: a temporary copy is an error


def content(seed=3):
    """Data with holes, short runs and zeroes between, about 9 MiB of a disk of 40 MiB and a bit."""
    pieces = [(0, compressible(MIB, seed)), (3 * MIB + 4096, os.urandom(70000)), (9 * MIB, compressible(6 * MIB, seed + 1)),
              (22 * MIB + 512, b"x" * 512), (31 * MIB, os.urandom(2 * MIB))]
    return 40 * MIB + 512, pieces


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_raw(tmp_path_factory.mktemp("source") / "source.raw", *content())


def written_to_a_pipe(source, path, *words):
    """qcow2 as `imgtk convert ... -` writes it: tables first."""
    with open(path, "wb") as out:
        made = subprocess.Popen([IMGTK, "convert", "-f", "raw", "-O", "qcow2", *words, source, "-"],
                                stdout=subprocess.PIPE, env=environment())
        subprocess.run(["cat"], stdin=made.stdout, stdout=out, check=True)
        made.stdout.close()
        assert made.wait() == 0
    return path


def convert_piped(image, *words, spool=NOWHERE, code=0):
    """Feeds an image through a real pipe; the result has what was said on stderr."""
    with open(image, "rb") as file:
        cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        done = subprocess.run([IMGTK, "convert", *map(str, words)], stdin=cat.stdout, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=environment(TMPDIR=spool), timeout=120, text=True)
        cat.stdout.close()
        cat.wait()
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.threads
@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=64k", "cluster_size=2M", "extended_l2=on",
                                     "compat=0.10,cluster_size=512"])
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_tables_first_need_no_temporary_copy(source, tmp_path, options, target):
    image = written_to_a_pipe(source, tmp_path / "image.qcow2", "-o", options)
    done = convert_piped(image, "-v", "-f", "qcow2", "-O", target, "-", tmp_path / "out")
    assert "read as it comes" in done.stderr
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", target, source, tmp_path / "out").out
    if target == "raw":
        assert_same_bytes(source, tmp_path / "out")


def test_the_format_is_found_out(source, tmp_path):
    image = written_to_a_pipe(source, tmp_path / "image.qcow2")
    convert_piped(image, "-O", "raw", "-", tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.deflate
@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", ["64k", "2M"])
def test_compressed_as_it_comes(source, tmp_path, kind, cluster):
    """qemu-img puts the few tables of a small disk before its data, or among the first of them."""
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", "-o", f"cluster_size={cluster},compression_type={kind}", source, image)
    done = convert_piped(image, "-v", "-f", "qcow2", "-O", "raw", "-", tmp_path / "out")
    assert "read as it comes" in done.stderr
    assert_same_bytes(source, tmp_path / "out")


def test_what_lies_backwards_is_spooled(tmp_path):
    writes = [f"write -P {at} {at}M 1M" for at in range(30, 0, -1)]
    image = make_image(tmp_path / "image.qcow2", 40 * MIB, writes=writes)
    qemu_img("convert", "-O", "raw", image, tmp_path / "expected")
    done = convert_piped(image, "-v", "-O", "raw", "-", tmp_path / "out", spool=tmp_path)
    assert "temporary file" in done.stderr
    assert_same_bytes(tmp_path / "expected", tmp_path / "out")
    assert "cannot make a temporary file" in convert_piped(image, "-O", "raw", "-", tmp_path / "no", code=1).stderr
    assert not (tmp_path / "no").exists()


def test_tables_far_behind_are_spooled(tmp_path):
    """The table of the second half of the disk lies behind the data of the first: too far to hold what is before it."""
    image = make_image(tmp_path / "image.qcow2", 1 << 30, writes=[f"write -P {at + 1} {at * 16}M 16M" for at in range(3)] +
                       ["write -P 9 700M 1M"])
    qemu_img("convert", "-O", "raw", image, tmp_path / "expected")
    done = convert_piped(image, "-v", "-O", "raw", "-", tmp_path / "out", spool=tmp_path)
    assert "temporary file" in done.stderr
    assert_same_bytes(tmp_path / "expected", tmp_path / "out")


def test_raw_of_a_size_that_is_told(source, tmp_path):
    size = source.stat().st_size
    convert_piped(source, "--image-opts", "-O", "qcow2", f"driver=raw,size={size},file.filename=-", tmp_path / "out")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, tmp_path / "out").out
    done = convert_piped(source, "--image-opts", "-O", "raw", f"driver=raw,size={size + 512},file.filename=-",
                         tmp_path / "longer", code=1)
    assert f"ends at byte {size}" in done.stderr
    assert not (tmp_path / "longer").exists()


def test_raw_of_unknown_size_is_spooled(source, tmp_path):
    done = convert_piped(source, "-v", "-f", "raw", "-O", "raw", "-", tmp_path / "out", spool=tmp_path)
    assert "temporary file" in done.stderr
    assert_same_bytes(source, tmp_path / "out")


def test_a_pipe_and_a_file_behind_each_other(source, tmp_path):
    image = written_to_a_pipe(source, tmp_path / "image.qcow2")
    convert_piped(image, "-O", "raw", "-", image, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == source.read_bytes() * 2


def test_a_stream_that_ends_early_leaves_nothing(source, tmp_path):
    image = written_to_a_pipe(source, tmp_path / "image.qcow2")
    os.truncate(image, image.stat().st_size - 2 * MIB)
    done = convert_piped(image, "-f", "qcow2", "-O", "raw", "-", tmp_path / "out", code=1)
    assert len(done.stderr.splitlines()) == 1 and "ends at byte" in done.stderr
    assert not (tmp_path / "out").exists()


def test_salvage_reads_twice_and_so_is_spooled(source, tmp_path):
    image = written_to_a_pipe(source, tmp_path / "image.qcow2")
    done = convert_piped(image, "-v", "--salvage", "-f", "qcow2", "-O", "raw", "-", tmp_path / "out", spool=tmp_path)
    assert "temporary file" in done.stderr
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.unsanitized
def test_memory_does_not_follow_the_size(tmp_path):
    source = make_raw(tmp_path / "source.raw", 200 * MIB, [(at * MIB, bytes([at % 255 + 1]) * MIB) for at in range(200)])
    image = written_to_a_pipe(source, tmp_path / "image.qcow2")
    peak = peak_memory("convert", "-f", "qcow2", "-O", "raw", "-", tmp_path / "out", input=image.read_bytes(),
                       env=environment(TMPDIR=NOWHERE))
    assert peak < 64 * MIB
    assert_same_bytes(source, tmp_path / "out")

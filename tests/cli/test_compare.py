"""imgtk compare tells and returns what qemu-img tells and returns, and reads no more than it must."""
import os
import shutil

import pytest

from imgtk_test import (IMGTK, KIB, MIB, TIB, allocated, compressible, environment, execute, imgtk,
                        make_image, make_raw, qemu_img, qemu_io, tool)


def make_disks(folder):
    make_raw(folder / "a.raw", 10 * MIB, [(MIB, compressible(MIB)), (5 * MIB, compressible(300 * KIB, seed=2))])
    qemu_img("convert", "-O", "qcow2", folder / "a.raw", folder / "a.qcow2")
    qemu_img("convert", "-c", "-O", "qcow2", folder / "a.raw", folder / "packed.qcow2")
    for name, size, offset in [("data.raw", 10, 5 * MIB + 70000), ("hole.raw", 10, 8 * MIB + 300),
                               ("both.raw", 10, MIB + 5000), ("longer.raw", 12, None),
                               ("beyond.raw", 12, 11 * MIB + 700)]:
        shutil.copyfile(folder / "a.raw", folder / name)
        with open(folder / name, "r+b") as file:
            file.truncate(size * MIB)
            if offset is not None:
                file.seek(offset)
                file.write(b"\1")
            if name == "both.raw":
                file.seek(8 * MIB)
                file.write(b"\1")


@pytest.fixture
def folder(tmp_path, fill, monkeypatch):
    """The same disk as a.raw, a.qcow2 and packed.qcow2, and others that differ from it."""
    monkeypatch.chdir(fill(tmp_path, make_disks))
    return tmp_path


PAIRS = [
    "a.raw a.raw", "a.raw a.qcow2", "a.qcow2 packed.qcow2", "a.raw data.raw", "data.raw a.qcow2", "a.raw hole.raw",
    "hole.raw a.raw", "a.raw both.raw", "both.raw packed.qcow2", "a.raw longer.raw", "longer.raw a.qcow2",
    "a.raw beyond.raw", "beyond.raw packed.qcow2", "data.raw beyond.raw", "-f raw -F qcow2 a.raw a.qcow2",
    "-q a.raw data.raw", "-q a.raw longer.raw",
]


@pytest.mark.parametrize("words", PAIRS)
@pytest.mark.parametrize("strict", [[], ["-s"]], ids=["", "strict"])
def test_as_qemu_img(folder, words, strict):
    words = strict + words.split()
    theirs = qemu_img("compare", *words, code=None)
    ours = imgtk("compare", *words, code=theirs.code)
    assert ours.out == theirs.out
    assert ours.err == ""


def test_strict(folder):
    assert imgtk("compare", "-s", "a.qcow2", "packed.qcow2", code=1).out == \
        "Strict mode: Offset 1048576 block status mismatch!\n"
    execute(["cp", "a.qcow2", "copy.qcow2"])  # with its holes
    assert imgtk("compare", "-s", "a.qcow2", "copy.qcow2").out == "Images are identical.\n"
    assert imgtk("compare", "--strict", "a.raw", "longer.raw", code=1).out == "Strict mode: Image size mismatch!\n"


@pytest.mark.threads
def test_the_first_of_several_differences_is_told(folder):
    make_raw("one.raw", 64 * MIB, [(0, compressible(MIB) * 64)])
    shutil.copyfile("one.raw", "two.raw")
    with open("two.raw", "r+b") as file:
        for offset in range(3 * MIB + 513, 64 * MIB, MIB):
            file.seek(offset)
            file.write(b"\0\1\2")
    for _ in range(5):
        assert imgtk("compare", "one.raw", "two.raw", code=1).out == f"Content mismatch at offset {3 * MIB + 512}!\n"


def test_a_snapshot_below_is_no_common_backing_file(folder):
    """An overlay of a file and the file itself, which has changed since."""
    make_image("top.qcow2", None, backing="a.qcow2", backing_fmt="qcow2")
    assert imgtk("compare", "top.qcow2", "a.qcow2").out == "Images are identical.\n"
    qemu_io("top.qcow2", "write -P 9 1M 64k")
    assert imgtk("compare", "top.qcow2", "a.qcow2", code=1).out == "Content mismatch at offset 1048576!\n"


def bytes_read(*words):
    """How many bytes imgtk reads from files called *.qcow2."""
    with open("imgtk.yaml", "w") as file:
        file.write("workers: 1\n")  # strace cuts the lines of calls that run at the same time
    result = execute([tool("strace"), "-f", "-y", "-e", "trace=pread64,preadv", "-o", "trace", IMGTK, *words],
                     env=environment(IMGTK_CONFIG="imgtk.yaml"))
    assert "identical" in result.out
    with open("trace") as trace:
        lines = [line for line in trace if ".qcow2>" in line]
    assert lines
    return sum(int(line.rsplit("= ", 1)[1].split()[0]) for line in lines)


@pytest.mark.slow  # not that it were: the leak checker of the sanitizers cannot run under strace
@pytest.mark.parametrize("base", ["a.qcow2", "packed.qcow2"])
def test_common_backing_files_are_not_read(folder, base):
    make_image("one.qcow2", None, backing=base, backing_fmt="qcow2", writes=["write -P 9 0 64k"])
    make_image("two.qcow2", None, backing=base, backing_fmt="qcow2", writes=["write -P 9 0 64k"])
    assert bytes_read("compare", "one.qcow2", "two.qcow2") < 800 * KIB < allocated("a.qcow2")


def test_huge_holes_cost_nothing(folder):
    make_image("one.qcow2", 16 * TIB)
    make_image("two.qcow2", 16 * TIB, options="cluster_size=2M")
    assert imgtk("compare", "one.qcow2", "two.qcow2", timeout=10).out == "Images are identical.\n"


def test_progress(folder):
    out = imgtk("compare", "-p", "a.raw", "a.qcow2").raw.decode()
    assert out.startswith("    (0.00/100%)\r")
    assert out.endswith("    (100.00/100%)\r\nImages are identical.\n")
    assert imgtk("compare", "-q", "-p", "a.raw", "a.qcow2").out == ""
    assert imgtk("compare", "-q", "--progress", "a.raw", "a.qcow2").out == ""
    assert imgtk("compare", "-q", "--progress=1", "a.raw", "a.qcow2").out.endswith("100/100\n"), "what a program gets"


@pytest.mark.parametrize("words, code", [("a.raw nx", 2), ("nx a.raw", 2), ("-f qcow2 a.raw a.raw", 2), ("a.raw", 2),
                                         ("--nonsense a.raw a.raw", 2)])
def test_cannot_open(folder, words, code):
    result = imgtk("compare", *words.split(), code=code)
    assert result.err.startswith("imgtk: ") and result.out == ""


@pytest.mark.threads
def test_cannot_read(folder):
    with open("packed.qcow2", "r+b") as file:
        file.seek(5 * 65536 + 5000)
        file.write(b"\xff" * 100)
    result = imgtk("compare", "a.raw", "packed.qcow2", code=4)
    assert result.err.startswith("imgtk: packed.qcow2: ") and len(result.err.splitlines()) == 1
    assert os.path.exists("a.raw")


def test_what_failed_first_decides_the_code(folder):
    """A cluster that cannot be read, and behind it a table that cannot: the walk is there before the bytes are read."""
    make_raw("small.raw", 64 * KIB, [(0, b"one of many lines\n" * 3640)])
    imgtk("convert", "-c", "-O", "qcow2", "-o", "cluster_size=512", "small.raw", "small.qcow2")
    with open("small.qcow2", "r+b") as file:
        def number(offset):
            file.seek(offset)
            return int.from_bytes(file.read(8), "big")

        table = number(40)
        cluster = number(number(table) & ((1 << 56) - 512)) & ((1 << 55) - 1)
        file.seek(cluster)
        file.write(b"\xff" * 40)
        file.seek(table + 8)
        file.write((1 << 63 | 1 << 40).to_bytes(8, "big"))
    assert "compressed cluster" in imgtk("compare", "small.raw", "small.qcow2", code=4).err

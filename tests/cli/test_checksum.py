"""imgtk checksum: the digest that docs/checksum.md defines, the same for all formats, in time for what is stored."""
import hashlib
import json
import re
import shutil
import subprocess
import time

import pytest

from imgtk_test import (FIXTURES, IMGTK, KIB, MIB, ROOT, TIB, compressible, digest, environment, execute, imgtk,
                        imgtk_fails, make_image, make_raw, qemu_img, tool)

ALGORITHMS = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b}
TARGETS = {"plain.qcow2": "qcow2", "packed.qcow2": "qcow2 -c", "sparse.vmdk": "vmdk", "disk.vdi": "vdi",
           "disk.vhdx": "vhdx", "stream.vmdk": "vmdk -o subformat=streamOptimized", "disk.vhd": "vpc -o force_size=on"}


def definition():
    """The function in the document, which somebody who writes it anew would begin with."""
    text = re.search(r"```python\n(.*?)```", (ROOT / "docs/checksum.md").read_text(), flags=re.S).group(1)
    names = {}
    exec(text, names)  # noqa: S102
    return names["checksum"]


def checksum(*words, **options):
    """The digest that one image has, as imgtk prints it."""
    line = imgtk("checksum", *words, **options).out
    value, name = line.rstrip("\n").split("  ")
    assert name == str(words[-1]) and re.fullmatch("[0-9a-f]+", value)
    return value


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The same disk in every format; disk.raw has data at odd places, zeroes that are stored, and holes."""
    folder = tmp_path_factory.mktemp("images")
    raw = make_raw(folder / "disk.raw", 5 * MIB + 64 * KIB, [
        (0, compressible(100 * KIB)), (200 * KIB + 512, compressible(64 * KIB, seed=2)), (MIB, bytes(300 * KIB)),
        (3 * MIB + 7 * 512, compressible(MIB, seed=3)), (5 * MIB + 2048, b"end")])
    for name, words in TARGETS.items():
        imgtk("convert", "-O", *words.split(), raw, folder / name)
    return folder


@pytest.fixture
def folder(images, tmp_path, monkeypatch):
    """disk.raw alone, in a folder that a test may write to."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(images / "disk.raw", "disk.raw")
    return tmp_path


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_as_defined(folder, algorithm):
    disk = (folder / "disk.raw").read_bytes()
    assert checksum("-a", algorithm, "disk.raw") == definition()(disk, ALGORITHMS[algorithm])
    assert checksum("--flat", "-d", algorithm, "disk.raw") == ALGORITHMS[algorithm](disk).hexdigest()


@pytest.mark.parametrize("size", [512, 64 * KIB, 64 * KIB + 512, 128 * KIB, 320 * KIB - 512])
def test_small_disks(tmp_path, size):
    disk = compressible(size)
    (tmp_path / "disk.raw").write_bytes(disk)
    assert checksum(tmp_path / "disk.raw") == definition()(disk)


def test_a_file_of_odd_length_is_a_disk_of_whole_sectors(tmp_path):
    (tmp_path / "disk.raw").write_bytes(b"x" * 1000)
    assert checksum(tmp_path / "disk.raw") == definition()(b"x" * 1000 + bytes(24))


@pytest.mark.threads
@pytest.mark.parametrize("words", [["-m", "1"], ["-m", "4"], ["--flat", "-m", "4"]], ids=" ".join)
def test_every_format_has_the_same(images, words):
    lines = imgtk("checksum", *words, *sorted(images.iterdir())).out.splitlines()
    assert len(lines) == 1 + len(TARGETS)
    expected = digest(images / "disk.raw") if "--flat" in words else definition()((images / "disk.raw").read_bytes())
    assert {line.split()[0] for line in lines} == {expected}, lines


def test_a_chain_is_one_disk(folder):
    make_image("top.qcow2", None, backing="disk.raw", backing_fmt="raw",
               writes=["write -P 7 130k 3k", "write -z 1M 64k"])
    qemu_img("convert", "-O", "raw", "top.qcow2", "flat.raw")
    assert checksum("top.qcow2") == checksum("flat.raw") != checksum("disk.raw")


def test_a_snapshot_has_its_own(folder):
    imgtk("convert", "-O", "qcow2", "disk.raw", "disk.qcow2")
    imgtk("snapshot", "-c", "before", "disk.qcow2")
    execute([tool("qemu-io"), "-c", "write -P 7 0 64k", "disk.qcow2"])
    assert checksum("-l", "before", "disk.qcow2") == checksum("disk.raw") != checksum("disk.qcow2")


def test_holes_take_no_time(tmp_path):
    empty = {size: make_image(tmp_path / str(size), size) for size in (16 * MIB, 16 * TIB)}
    start = time.monotonic()
    large = checksum(empty[16 * TIB])
    assert time.monotonic() - start < 2  # some 2,000 s at the speed of SHA-256
    assert large != checksum(empty[16 * MIB])
    assert checksum(make_raw(tmp_path / "raw", 1 * TIB)) == checksum(make_image(tmp_path / "qcow2", 1 * TIB))


@pytest.mark.parametrize("words", [[], ["--flat"]], ids=["tree", "flat"])
@pytest.mark.parametrize("source", ["raw", "qcow2"])
def test_from_a_pipe(folder, words, source):
    """What imgtk writes to a pipe is read as it comes, what others wrote by way of a temporary file."""
    with subprocess.Popen([IMGTK, "convert", "-O", source, "disk.raw", "-"], stdout=subprocess.PIPE,
                          env=environment()) as writer:
        done = subprocess.run([IMGTK, "checksum", "-v", *words, "-"], stdin=writer.stdout, capture_output=True,
                              env=environment(), check=True, text=True)
    assert done.stdout == f"{checksum(*words, 'disk.raw')}  -\n"
    assert ("read as it comes" in done.stderr) == (source == "qcow2")


def test_several_files_and_one_that_is_missing(folder):
    shutil.copyfile("disk.raw", "copy.raw")
    result = imgtk("checksum", "disk.raw", "missing.raw", "copy.raw", code=1)
    lines = [line.split("  ") for line in result.out.splitlines()]
    assert [name for _, name in lines] == ["disk.raw", "copy.raw"] and lines[0][0] == lines[1][0]
    assert result.err == "imgtk: Could not open 'missing.raw': No such file or directory\n"


def test_expect(folder):
    value = checksum("disk.raw")
    assert imgtk("checksum", "-q", "--expect", value.upper(), "disk.raw").out == ""
    other = "0" * 64
    result = imgtk_fails("checksum", "--expect", other, "disk.raw",
                         match=f"disk.raw: the checksum is {value}, {other} was")
    assert result.out == f"{value}  disk.raw\n"
    assert imgtk("checksum", "--expect", value, "disk.raw", "disk.raw", code=1).out == ""


def test_json(folder):
    imgtk("convert", "-O", "qcow2", "disk.raw", "disk.qcow2")
    assert json.loads(imgtk("checksum", "--output=json", "-a", "blake2b", "disk.qcow2").out) == {
        "filename": "disk.qcow2", "format": "qcow2", "virtual-size": 5 * MIB + 64 * KIB, "algorithm": "blake2b",
        "flat": False, "checksum": checksum("-a", "blake2b", "disk.raw")}


def test_progress_for_a_program(folder):
    out = execute(["sh", "-c", f"{IMGTK} checksum --progress=3 disk.raw 3>rows && cat rows"]).out.splitlines()
    assert out[1] == "0/100" and out[-1] == "100/100"


def test_unknown_algorithms_are_told(folder):
    imgtk_fails("checksum", "-a", "md5", "disk.raw", match=r"Unknown digest 'md5' \(installed: blake2b, sha256\)")
    imgtk_fails("checksum", "-a", "../digest/sha256", "disk.raw", match="Unknown digest")


def test_an_unreadable_image_has_no_checksum(tmp_path):
    shutil.copyfile(FIXTURES / "debian.qcow2", tmp_path / "cut.qcow2")
    with open(tmp_path / "cut.qcow2", "r+b") as file:
        file.truncate(100 * KIB)
    for words in ([], ["--flat"]):
        assert imgtk("checksum", *words, tmp_path / "cut.qcow2", code=1).out == ""


@pytest.mark.unsanitized
def test_no_other_command_loads_the_library(folder):
    """libcrypto would take longer to load than `info` takes in all."""
    trace = execute([tool("strace"), "-f", "-e", "trace=openat", IMGTK, "info", "disk.raw"]).err
    assert "libimgtk.so" in trace and "libcrypto" not in trace and "digest/" not in trace
    assert "libcrypto" in execute([tool("strace"), "-f", "-e", "trace=openat", IMGTK, "checksum", "disk.raw"]).err

"""Damaged qcow2 images: a clear line and exit 1, or the right bytes; never a crash, a hang or a memory hog."""
import random
import struct

import pytest
from imgtk_test import KIB, MIB, assert_same_bytes, compressible, imgtk, imgtk_fails, make_image, make_raw, qemu_img, qemu_io

MEMORY = 256 * MIB
COPIED, COMPRESSED = 1 << 63, 1 << 62


class Image:
    """The bytes of an image and where its tables are."""

    def __init__(self, path):
        self.path = path
        self.data = bytearray(path.read_bytes())
        self.cluster_bits, = struct.unpack_from(">I", self.data, 20)
        self.cluster_size = 1 << self.cluster_bits
        self.l1_size, self.l1 = struct.unpack_from(">IQ", self.data, 36)
        self.l2 = self.get(self.l1) & 0x00fffffffffffe00

    def get(self, at):
        return struct.unpack_from(">Q", self.data, at)[0]

    def put(self, at, value, form=">Q"):
        struct.pack_into(form, self.data, at, value)

    def write(self):
        self.path.write_bytes(self.data)
        return self.path


def make_mixed(folder):
    raw = make_raw(folder / "disk.raw", 200 * KIB, [(0, compressible(100 * KIB)), (150 * KIB, b"\7" * 4096)])
    path = folder / "a.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", raw, path)
    qemu_io(path, "write -P 1 8k 6k", "write -P 2 40k 512", "write -z 60k 8k", "write -P 9 180k 20k")
    qemu_img("snapshot", "-c", "snap", path)
    qemu_io(path, "write -P 3 0 5k")


@pytest.fixture
def mixed(tmp_path, fill):
    """A small image with plain, compressed, zero and unallocated clusters, and a snapshot."""
    return fill(tmp_path, make_mixed) / "a.qcow2"


def plain(tmp_path, options="cluster_size=4k", size=MIB):
    path = make_image(tmp_path / "a.qcow2", size, options=options, writes=["write -P 1 0 64k"])
    return Image(path)


def refused(path, match, command="convert"):
    out = path.with_suffix(".out")
    words = ["convert", "-f", "qcow2", "-O", "raw", path, out] if command == "convert" else [command, "-f", "qcow2", path]
    imgtk_fails(*words, match=match, memory=MEMORY)
    assert not out.exists()


def judge(path, out):
    """Converts; True when that succeeded, else there was one line and nothing is left behind."""
    result = imgtk("convert", "-f", "qcow2", "-O", "raw", path, out, code=None, memory=MEMORY, timeout=60)
    if result.code == 0:
        return True
    assert result.code == 1, result
    assert len(result.err.splitlines()) == 1, result
    assert not out.exists()
    return False


def test_truncated_anywhere(mixed, tmp_path):
    whole = mixed.read_bytes()
    right, out = tmp_path / "right", tmp_path / "out"
    imgtk("convert", "-f", "qcow2", "-O", "raw", mixed, right)
    assert len(whole) % 512 == 0
    good = 0
    for length in range(0, len(whole), 512):
        mixed.write_bytes(whole[:length])
        if judge(mixed, out):
            assert_same_bytes(out, right)
            out.unlink()
            good += 1
    # What lies last in the file is the newest data, so nearly all of it is needed.
    assert good <= 8


@pytest.mark.parametrize("part", range(4))
def test_bits_flipped_in_metadata(mixed, tmp_path, part):
    image = Image(mixed)
    whole = bytes(image.data)
    rng = random.Random(1)
    places = [rng.randrange(0, 112) for _ in range(60)] + [image.l1 + rng.randrange(8 * image.l1_size) for _ in range(20)]
    places += [image.l2 + rng.randrange(50 * 8) for _ in range(60)]
    flips = [(place, 1 << rng.randrange(8)) for place in places]
    for place, bit in flips[part::4]:
        image.data[:] = whole
        image.data[place] ^= bit
        image.write()
        if judge(mixed, tmp_path / "out"):
            (tmp_path / "out").unlink()
        for command in (("map", "--output=json"), ("info", "--output=json")):
            result = imgtk(*command, "-f", "qcow2", mixed, code=None, memory=MEMORY, timeout=60)
            assert result.code in (0, 1), result


@pytest.mark.deflate
def test_garbage_in_compressed_clusters(mixed, tmp_path):
    image = Image(mixed)
    at = next(image.get(image.l2 + 8 * i) for i in range(50) if image.get(image.l2 + 8 * i) & COMPRESSED)
    host = at & ((1 << 58) - 1)
    image.data[host:host + 64] = b"\xff" * 64
    image.write()
    refused(mixed, "compressed cluster of guest offset 0x")


@pytest.mark.parametrize("at, form, value, match", [
    (4, ">I", 7, "version 7"),
    (20, ">I", 40, r"cluster size 2\^40"),
    (20, ">I", 8, r"cluster size 2\^8"),
    (24, ">Q", 1 << 62, "L1 table of"),
    (24, ">Q", (1 << 64) - 1, "virtual size 18446744073709551615"),
    (32, ">I", 1, "AES"),
    (32, ">I", 2, "LUKS"),
    (36, ">I", 0xffffffff, "L1 table of 4294967295 entries"),
    (40, ">Q", 1 << 40, "end of the file"),
    (40, ">Q", 0x30001, "not a multiple"),
    (40, ">Q", 0, "header"),
    (56, ">I", 0x10000, "refcount table of"),
    (60, ">I", 0x10001, "65537 snapshots"),
    (60, ">I", 60000, "snapshot table"),
    (72, ">Q", 1 << 60, r"\(bit 60\)"),
    (100, ">I", 0xffff, "header length"),
    (104, ">B", 9, "compression type 9"),
])
def test_header(tmp_path, at, form, value, match):
    image = plain(tmp_path)
    image.put(at, value, form)
    refused(image.write(), match)


@pytest.mark.parametrize("entry, match", [
    (0x123400 | COPIED, "not a multiple of the cluster size"),
    (1 << 40, "beyond the end of the file"),
    (0x00fffffffffff000, "beyond the end of the file"),
])
def test_tables_and_data_elsewhere(tmp_path, entry, match):
    image = plain(tmp_path)
    whole = bytes(image.data)
    image.put(image.l1, entry)
    refused(image.write(), f"L2 table of guest offset 0x0 .*{match}")
    image.data[:] = whole
    image.put(image.l2 + 8 * 3, entry)
    refused(image.write(), f"guest offset 0x3000 .*{match}")


def test_data_within_tables(tmp_path):
    image = plain(tmp_path)
    whole = bytes(image.data)
    image.put(image.l2 + 8 * 3, image.l1 | COPIED)
    refused(image.write(), "guest offset 0x3000 .*L1 table")
    image.data[:] = whole
    image.put(image.l1, image.l1 | COPIED)
    refused(image.write(), "L2 table .*L1 table")
    image.data[:] = whole
    image.put(image.l2 + 8 * 3, COMPRESSED | 16)
    refused(image.write(), "guest offset 0x3000 .*header")


def test_zero_cluster_in_version_2(tmp_path):
    image = plain(tmp_path, "cluster_size=4k,compat=0.10")
    image.put(image.l2 + 8 * 3, 1)
    refused(image.write(), "version 2")


def test_subclusters_that_contradict(tmp_path):
    image = plain(tmp_path, "extended_l2=on,cluster_size=16k")
    image.put(image.l2 + 16 * 2 + 8, 1 << 32 | 1)
    refused(image.write(), "guest offset 0x8000 contradict")


def test_compressed_in_data_file(tmp_path):
    image = plain(tmp_path, f"data_file={tmp_path}/a.data")
    image.put(image.l2, COMPRESSED | 0x50000)
    refused(image.write(), "external data file")


def test_data_file_too_short(tmp_path):
    image = plain(tmp_path, f"data_file={tmp_path}/a.data")
    with open(tmp_path / "a.data", "r+b") as file:
        file.truncate(8192)
    refused(image.path, "beyond the end of the file")


def test_names_too_long(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB)
    image = Image(image)
    image.put(8, 0x200)
    image.put(16, 1024, ">I")
    refused(image.write(), "backing file name of 1024 bytes is above the limit of 1023")
    image.put(16, 5, ">I")
    image.data[0x200:0x205] = b"ab\0cd"
    refused(image.write(), "NUL")


def test_huge_tables_in_a_sparse_file(tmp_path):
    """The header may claim as much as the file seems to hold: memory stays bounded all the same."""
    image = plain(tmp_path)
    image.put(20, 9, ">I")
    image.put(24, (4 << 20) * 64 * 512)
    image.put(36, 4 << 20, ">I")
    image.put(40, 1 << 20)
    image.put(56, 1, ">I")
    with open(image.path, "wb") as file:
        file.write(image.data)
        file.truncate(1 << 40)
    imgtk("map", "--output=json", "-f", "qcow2", image.path, memory=MEMORY)


def test_snapshot_table(mixed, tmp_path):
    image = Image(mixed)
    whole = bytes(image.data)
    table = image.get(64)
    words = ("convert", "-f", "qcow2", "-l", "snap", "-O", "raw", mixed, tmp_path / "out")
    for at, form, value, match in ((0, ">Q", 1, "not a multiple"), (0, ">Q", 1 << 40, "end of the file"),
                                   (8, ">I", 0, "too small"), (8, ">I", 0xffffffff, "limit"),
                                   (36, ">I", 0xffffffff, "extra data"), (12, ">H", 0xffff, "snapshot 1"),
                                   (48, ">Q", 1 << 63, "virtual size"), (48, ">Q", 1 << 50, "too small")):
        image.data[:] = whole
        image.put(table + at, value, form)
        image.write()
        imgtk_fails(*words, match=match, memory=MEMORY)


def test_bitmap_directory(tmp_path):
    path = make_image(tmp_path / "a.qcow2", MIB)
    qemu_img("bitmap", "--add", path, "one")
    image = Image(path)
    whole = bytes(image.data)
    extension = image.data.index(struct.pack(">I", 0x23852875)) + 8
    directory = image.get(extension + 16)
    for at, form, value, match in ((extension, ">I", 70000, "70000 bitmaps"), (extension, ">I", 2, "within an entry"),
                                   (extension + 8, ">Q", 1 << 60, "limit"), (extension + 16, ">Q", 1 << 40, "end of the file"),
                                   (extension + 16, ">Q", 1, "not a multiple"), (directory + 18, ">H", 5000, "name"),
                                   (directory + 17, ">B", 99, "granularity"), (directory + 20, ">I", 0xffffffff, "entry")):
        image.data[:] = whole
        image.put(at, value, form)
        image.write()
        imgtk_fails("info", path, match=match, memory=MEMORY)


@pytest.mark.parametrize("version", [0, 1, 4])
def test_other_versions_are_not_raw(tmp_path, version):
    image = plain(tmp_path)
    image.put(4, version, ">I")
    image.write()
    imgtk_fails("convert", "-O", "raw", image.path, tmp_path / "out", match=f"qcow2 version {version} is neither")

"""VMDK images that qemu-img does not make: ESX extents, links between images, damage, and hostile descriptors."""
import json
import os

import pytest

from imgtk_test import (GIB, KIB, MIB, assert_same_bytes, compressible, imgtk, imgtk_fails, make_image, make_raw,
                        qemu_img)
from vmdk_build import (UNMAPPED, ZERO, Hosted, descriptor, parse_stream, write_cowd, write_descriptor,
                        write_sesparse)

SUBFORMATS = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]


def placed(sectors, parts):
    data = bytearray(sectors * 512)
    for at, part in parts:
        data[at:at + len(part)] = part
    return bytes(data)


def read_back(tmp_path, image):
    imgtk("convert", "-f", "vmdk", "-O", "raw", image, tmp_path / "back.raw")
    return (tmp_path / "back.raw").read_bytes()


def data_rows(result):
    return [(row["start"], row["length"], row.get("offset"), row["zero"]) for row in json.loads(result.out)]


def fails_to_read(tmp_path, image, match):
    back = tmp_path / "back.raw"
    imgtk_fails("convert", "-f", "vmdk", "-O", "raw", image, back, match=match, timeout=20, memory=GIB)
    assert not back.exists()


# ---- ESX -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("grain", [1, 8, 128])
def test_cowd(tmp_path, grain):
    sectors = 20480
    grains = {number: compressible(grain * 512, number + 1) for number in (0, 1, 2, 7, sectors // grain - 1)}
    write_cowd(tmp_path / "disk-delta.vmdk", sectors, grains, grain)
    image = write_descriptor(tmp_path / "disk.vmdk", [f'RW {sectors} VMFSSPARSE "disk-delta.vmdk"'],
                             create_type="vmfsSparse")
    assert read_back(tmp_path, image) == placed(sectors, [(at * grain * 512, data) for at, data in grains.items()])
    qemu_img("compare", "-f", "raw", "-F", "vmdk", tmp_path / "back.raw", image)
    assert data_rows(imgtk("map", "--output=json", image)) == data_rows(qemu_img("map", "--output=json", image))
    imgtk("check", "-f", "vmdk", tmp_path / "disk-delta.vmdk")


def test_sesparse(tmp_path):
    sectors = 100000
    grains = {0: b"a" * 4096, 3: ZERO, 4: UNMAPPED, 5: compressible(4096), 4095: b"b" * 4096, 4096: b"c" * 4096,
              12499: b"d" * 4096}
    write_sesparse(tmp_path / "disk-sesparse.vmdk", sectors, grains)
    image = write_descriptor(tmp_path / "disk.vmdk", [f'RW {sectors} SESPARSE "disk-sesparse.vmdk"'],
                             create_type="seSparse")
    parts = [(number * 4096, data) for number, data in grains.items() if isinstance(data, bytes)]
    assert read_back(tmp_path, image) == placed(sectors, parts)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", tmp_path / "back.raw", image)
    assert data_rows(imgtk("map", "--output=json", image)) == data_rows(qemu_img("map", "--output=json", image))
    imgtk("check", "-f", "vmdk", tmp_path / "disk-sesparse.vmdk")


def test_sesparse_journal_is_refused(tmp_path):
    write_sesparse(tmp_path / "s.vmdk", 8000, {0: b"a"}, replay=1)
    image = write_descriptor(tmp_path / "disk.vmdk", ['RW 8000 SESPARSE "s.vmdk"'])
    fails_to_read(tmp_path, image, "journal")


def test_sesparse_entry_of_no_kind(tmp_path):
    path = write_sesparse(tmp_path / "s.vmdk", 8000, {0: b"a"})
    image = write_descriptor(tmp_path / "disk.vmdk", ['RW 8000 SESPARSE "s.vmdk"'])
    Hosted(path).poke(9 * 512 + 7, b"\x90")
    fails_to_read(tmp_path, image, "grain 0")
    Hosted(path).poke(8 * 512, b"\xff")
    fails_to_read(tmp_path, image, "grain directory")


def test_mixed_extents(tmp_path):
    """Flat with an offset, zero, hosted sparse and ESX sparse in one disk."""
    make_raw(tmp_path / "flat.vmdk", 65536, [(1024, compressible(64512))])
    make_image(tmp_path / "whole.vmdk", "1M", "vmdk", writes=["write -P 9 64k 1024"])
    write_cowd(tmp_path / "cowd.vmdk", 100, {99: b"end"})
    image = write_descriptor(tmp_path / "disk.vmdk", [
        'RW 100 FLAT "flat.vmdk" 2', "RW 50 ZERO", 'RDONLY 2048 SPARSE "whole.vmdk"', 'RW 100 VMFSSPARSE "cowd.vmdk"'])
    flat = (tmp_path / "flat.vmdk").read_bytes()[1024:1024 + 51200]
    base = 150 * 512 + 64 * KIB
    assert read_back(tmp_path, image) == placed(2298, [(0, flat), (base, b"\x09" * 1024), (2297 * 512, b"end")])


# ---- Links ---------------------------------------------------------------------------------------------------------

def test_link_over_a_flat_parent(tmp_path):
    make_raw(tmp_path / "base-flat.vmdk", 100 * 512, [(0, b"base" * 12800)])
    write_descriptor(tmp_path / "base.vmdk", ['RW 100 VMFS "base-flat.vmdk"'], create_type="vmfs", cid=0xABCD0001)
    write_cowd(tmp_path / "delta.vmdk", 100, {50: b"delta" * 100})
    line = ['RW 100 VMFSSPARSE "delta.vmdk"']
    image = write_descriptor(tmp_path / "disk.vmdk", line, parent_cid=0xABCD0001, parent="base.vmdk")
    expected = bytearray(b"base" * 12800)
    expected[50 * 512:51 * 512] = (b"delta" * 100).ljust(512, b"\0")
    assert read_back(tmp_path, image) == expected
    (tmp_path / "back.raw").unlink()
    write_descriptor(tmp_path / "disk.vmdk", line, parent_cid=0xABCD0002, parent="base.vmdk")
    fails_to_read(tmp_path, image, "(?i)abcd000[12]")


def test_parent_that_moved_with_its_child(tmp_path):
    base = make_image(tmp_path / "base.vmdk", "1M", "vmdk", writes=["write -P 5 0 1M"])
    cid = json.loads(imgtk("info", "--output=json", base).out)["format-specific"]["data"]["cid"]
    write_cowd(tmp_path / "delta.vmdk", 2048, {})
    image = write_descriptor(tmp_path / "disk.vmdk", ['RW 2048 VMFSSPARSE "delta.vmdk"'], parent_cid=cid,
                             parent="old/place/base.vmdk")
    assert read_back(tmp_path, image) == b"\5" * MIB


@pytest.mark.parametrize("parent, parent_cid", [("base.vmdk", 0xFFFFFFFF), (None, 0x11111111)])
def test_half_a_parent_is_an_error(tmp_path, parent, parent_cid):
    write_cowd(tmp_path / "delta.vmdk", 100, {})
    image = write_descriptor(tmp_path / "disk.vmdk", ['RW 100 VMFSSPARSE "delta.vmdk"'], parent_cid=parent_cid,
                             parent=parent)
    fails_to_read(tmp_path, image, "parent")


# ---- Damage --------------------------------------------------------------------------------------------------------

def make_sparse(folder):
    image = make_image(folder / "disk.vmdk", "80M", "vmdk",
                       writes=["write -P 1 0 1M", "write -P 2 40M 70k", "write -P 3 79M 1M"])
    qemu_img("convert", "-O", "raw", image, folder / "good.raw")


@pytest.fixture
def sparse(tmp_path, fill):
    """A monolithicSparse image of 80 MiB with data in all three grain tables; good.raw has its disk."""
    return fill(tmp_path, make_sparse) / "disk.vmdk"


def assert_repaired(tmp_path, image):
    read_back(tmp_path, image)
    assert_same_bytes(tmp_path / "good.raw", tmp_path / "back.raw")
    shown = json.loads(imgtk("info", "--output=json", image).out)
    assert shown["format-specific"]["data"]["redundant-tables-used"] is True
    imgtk("check", "-f", "vmdk", image, code=2)


def test_redundant_table(tmp_path, sparse):
    assert "redundant-tables-used" not in imgtk("info", "--output=json", sparse).out
    Hosted(sparse).gt_entry(640, 0xFFFFFFF0)
    assert_repaired(tmp_path, sparse)


@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 1, "directory"])
def test_redundant_directory_entry(tmp_path, sparse, value):
    """Gone, beyond the file, in the descriptor, in the directory itself."""
    damaged = Hosted(sparse)
    damaged.gd_entry(1, damaged.get("gd") if value == "directory" else value)
    assert_repaired(tmp_path, sparse)


def test_redundant_directory_when_the_first_is_outside(tmp_path, sparse):
    Hosted(sparse).set(gd=1 << 40)
    assert_repaired(tmp_path, sparse)


def test_redundant_directory_when_two_entries_share_a_table(tmp_path, sparse):
    damaged = Hosted(sparse)
    damaged.gd_entry(2, damaged.gd_entry(0))
    assert_repaired(tmp_path, sparse)


def test_check_finds_copies_that_differ(sparse):
    Hosted(sparse).gt_entry(640, 0, redundant=True)
    result = imgtk("check", "-f", "vmdk", sparse, code=2)
    assert "differ" in result.out + result.err


def test_check_finds_shared_grains(sparse):
    damaged = Hosted(sparse)
    for redundant in (False, True):
        damaged.gt_entry(641, damaged.gt_entry(0), redundant=redundant)
    result = imgtk("check", "-f", "vmdk", sparse, code=2)
    assert "shares its place" in result.out + result.err


@pytest.mark.parametrize("value", [0xFFFFFFFF, 1, 22])
def test_bad_grain(tmp_path, sparse, value):
    for redundant in (False, True):
        Hosted(sparse).gt_entry(640, value, redundant=redundant)
    fails_to_read(tmp_path, sparse, "grain 640")


def test_bad_table_spoils_its_own_grains_alone(sparse):
    for redundant in (False, True):
        Hosted(sparse).gt_entry(640, 0xFFFFFFFF, redundant=redundant)
    for start in ("0", "64M"):
        imgtk("map", "-f", "vmdk", "--start-offset", start, "--max-length", "16M", sparse)
    imgtk_fails("map", "-f", "vmdk", "--start-offset", "16M", "--max-length", "32M", sparse, match="grain 640")


@pytest.mark.parametrize("value", [0xFFFFFFFF, 1, 21, "directory"])
def test_bad_directory(tmp_path, sparse, value):
    damaged = Hosted(sparse)
    for redundant in (False, True):
        damaged.gd_entry(1, damaged.get("gd") if value == "directory" else value, redundant=redundant)
    fails_to_read(tmp_path, sparse, "grain directory")


def test_directory_that_loops(tmp_path, sparse):
    damaged = Hosted(sparse)
    for redundant in (False, True):
        damaged.gd_entry(1, damaged.gd_entry(0, redundant=redundant), redundant=redundant)
    fails_to_read(tmp_path, sparse, "share")


@pytest.mark.parametrize("values, match", [
    (dict(capacity=1 << 63), "capacity"), (dict(capacity=2**64 - 1), "capacity"), (dict(capacity=1 << 50), "limit"),
    (dict(capacity=1 << 36), "grain directory"), (dict(grain=0), "grain size"), (dict(grain=100), "grain size"),
    (dict(grain=1 << 40), "grain size"), (dict(gtes=0), "grain table"), (dict(gtes=0x80000000), "grain table"),
    (dict(gd=1 << 60, rgd=1 << 60), "grain directory"), (dict(version=4), "version"), (dict(flags=0x80003), "flags"),
    (dict(compression=2), "compression"), (dict(flags=0x10003), "compressed"),
    (dict(newlines=b"\r\n\r\n"), "line ends"),
    (dict(descriptor_size=1 << 40), "descriptor"), (dict(descriptor_offset=1 << 50), "descriptor"),
    (dict(descriptor_offset=0), "extent of an image"), (dict(capacity=0, descriptor_size=0), "capacity")])
def test_bad_header(tmp_path, sparse, values, match):
    Hosted(sparse).set(**values)
    fails_to_read(tmp_path, sparse, match)


def test_truncated_sparse(tmp_path, sparse):
    os.truncate(sparse, sparse.stat().st_size - 4096)
    fails_to_read(tmp_path, sparse, "grain")


def make_stream(folder):
    parts = [(0, compressible(MIB)), (40 * MIB, os.urandom(300 * KIB)), (69 * MIB, compressible(MIB, 2))]
    raw = make_raw(folder / "source.raw", 70 * MIB, parts)
    imgtk("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, folder / "stream.vmdk")


@pytest.fixture
def stream(tmp_path, fill):
    """A streamOptimized image of 70 MiB with data in all three grain tables; source.raw has its disk."""
    return fill(tmp_path, make_stream) / "stream.vmdk"


@pytest.mark.deflate
@pytest.mark.parametrize("cut", [1, 512, 1024, 1536, 100000])
def test_truncated_stream(tmp_path, stream, cut):
    os.truncate(stream, stream.stat().st_size - cut)
    fails_to_read(tmp_path, stream, "footer|cut off")


def test_stream_of_a_header_alone(tmp_path, stream):
    os.truncate(stream, 1024)
    fails_to_read(tmp_path, stream, ".")


@pytest.mark.parametrize("values", [dict(capacity=1 << 20), dict(gd=2**64 - 1), dict(grain=64), dict(magic=0)])
def test_bad_footer(tmp_path, stream, values):
    Hosted(stream, stream.stat().st_size - 1024).set(**values)
    fails_to_read(tmp_path, stream, "footer")


@pytest.mark.deflate
@pytest.mark.parametrize("offset, data, match", [
    (0, b"\xff" * 8, "marker"), (8, b"\xff\xff\xff\x7f", "compressed bytes"), (8, bytes(4), "compressed bytes"),
    (12, b"garbage", "grain"), (40, b"\x55\xaa" * 20, "grain")])
def test_garbage_in_a_grain(tmp_path, stream, offset, data, match):
    at = parse_stream(stream)[0]["overhead"] * 512
    Hosted(stream).poke(at + offset, data)
    fails_to_read(tmp_path, stream, match)
    if offset < 12:
        imgtk("check", "-f", "vmdk", stream, code=2)


def test_failed_write_leaves_nothing(tmp_path):
    """A source that cannot be read to its end leaves neither a descriptor nor extents behind."""
    part = make_image(tmp_path / "part.vmdk", "80M", "vmdk", writes=["write -P 1 0 1M", "write -P 1 70M 1M"])
    for redundant in (False, True):
        Hosted(part).gt_entry(70 * 16 + 3, 0xFFFFFFFF, redundant=redundant)
    for subformat in SUBFORMATS:
        imgtk_fails("convert", "-f", "vmdk", "-O", "vmdk", "-o", f"subformat={subformat}", part, tmp_path / "out.vmdk")
        assert [path.name for path in tmp_path.iterdir()] == ["part.vmdk"], subformat


# ---- Descriptors ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "sub/../../secret", "/dev/zero", "/proc/self/environ",
                                  "link", "nbd://localhost/x", "fd:0", "-", "http://localhost/x"])
def test_extent_outside_is_refused(tmp_path, name):
    """Whatever the type: nothing outside the image's folder is opened, and `info` opens nothing at all."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    (folder / "link").symlink_to("../secret")
    for kind in ("FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "SESPARSE"):
        image = write_descriptor(folder / "disk.vmdk", [f'RW 1 {kind} "{name}"' + (" 0" if kind == "FLAT" else "")])
        fails_to_read(tmp_path, image, ".")
        imgtk("info", "-f", "vmdk", image)


@pytest.mark.parametrize("lines, match", [
    ([], "no extent"), (["RW 0 ZERO"], "0 sectors"), (["RW x ZERO"], "not a number"), (["RW -1 ZERO"], "not a number"),
    (["RW 99999999999999999999 ZERO"], "not a number"), (["RW 18446744073709551615 ZERO"], "limit"),
    (["RW 18014398509481983 ZERO"] * 2, "larger"), (["RW 8 FLAT"], "quotes"), (['RW 8 FLAT "open'], "quotes"),
    (['RW 8 FLAT "" 0'], "quotes"), (['RW 8 FLAT "a\x01b" 0'], "control"), (["NOACCESS 8 ZERO"], "NOACCESS"),
    (['RW 8 VMFSRDM "x"'], "VMFSRDM"), (['RW 8 FLAT "short.vmdk" 0'], "short.vmdk"), (["RW 8"], "type"),
    (["RW  "], "no extent"), (['RW 8 FLAT "disk.vmdk" 99999999999999999999'], "not a number"),
    (['RW 8 FLAT "disk.vmdk" 18014398509481983'], "needs"), (['RW 8 SPARSE "disk.vmdk"'] * 20, "KDMV"),
    (["RW 1 ZERO"] * 20000, "extents"), (["RW 1 ZERO" + " " * 5000], "line")])
def test_bad_descriptor(tmp_path, lines, match):
    make_raw(tmp_path / "short.vmdk", 1000)
    fails_to_read(tmp_path, write_descriptor(tmp_path / "disk.vmdk", lines), match)


@pytest.mark.parametrize("extra, match", [("#", "limit"), ("CID=123456789", "CID"), ("parentCID=none", "parentCID")])
def test_bad_values(tmp_path, extra, match):
    extra = (extra * MIB if extra == "#" else extra) + "\n"
    fails_to_read(tmp_path, write_descriptor(tmp_path / "disk.vmdk", ["RW 1 ZERO"], extra=extra), match)


def test_extent_smaller_than_its_line(tmp_path):
    make_image(tmp_path / "part.vmdk", "1M", "vmdk")
    fails_to_read(tmp_path, write_descriptor(tmp_path / "disk.vmdk", ['RW 4096 SPARSE "part.vmdk"']), "header")


def test_one_file_many_times_stays_small(tmp_path):
    """Each use has its directory in memory; together they have a limit."""
    make_image(tmp_path / "part.vmdk", "1T", "vmdk")
    lines = [f'RW {1024 * GIB // 512} SPARSE "part.vmdk"'] * 200
    fails_to_read(tmp_path, write_descriptor(tmp_path / "disk.vmdk", lines), "directories of all extents")


def test_lone_extent_is_for_check_alone(tmp_path):
    imgtk("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", tmp_path / "disk.vmdk", "1M")
    fails_to_read(tmp_path, tmp_path / "disk-s001.vmdk", "descriptor")
    imgtk("check", "-f", "vmdk", tmp_path / "disk-s001.vmdk")
    imgtk_fails("check", "-f", "vmdk", tmp_path / "disk.vmdk", match="check that file")


def test_line_ends_and_letter_case(tmp_path):
    make_raw(tmp_path / "flat.vmdk", 4096, [(0, b"x" * 4096)])
    text = '# disk descriptorfile\r\nversion = 1\r\ncid = ABCD\r\nPARENTcid=FFFFFFFF\r\n rw 8 flat "flat.vmdk" 0 \r\n'
    (tmp_path / "disk.vmdk").write_bytes(text.encode() + bytes(100))
    assert read_back(tmp_path, tmp_path / "disk.vmdk") == b"x" * 4096


def test_embedded_descriptor_of_other_files(tmp_path):
    """A header with a capacity of 0 only carries the descriptor."""
    make_raw(tmp_path / "flat.vmdk", 4096, [(0, b"y" * 4096)])
    image = make_image(tmp_path / "disk.vmdk", "1M", "vmdk")
    Hosted(image).set(capacity=0)
    Hosted(image).poke(512, descriptor(['RW 8 FLAT "flat.vmdk" 0']).encode().ljust(10240, b"\0"))
    assert read_back(tmp_path, image) == b"y" * 4096

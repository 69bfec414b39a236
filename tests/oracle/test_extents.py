"""The rows of map: what each layer and each kind of cluster makes of them, against qemu-img's."""
import json
import os

import pytest
from imgtk_test import KIB, MIB, TIB, compressible, imgtk, imgtk_fails, make_image, make_raw, qemu_img, qemu_io

CLUSTER = 64 * KIB


def without_compressed(rows):
    """qemu-img 7.2 does not tell it yet."""
    return [{key: value for key, value in row.items() if key != "compressed"} for row in rows]


def ours(image, *words):
    return json.loads(imgtk("map", "--output=json", *words, image, cwd=os.path.dirname(image)).out)


def theirs(image, *words):
    return json.loads(qemu_img("map", "--output=json", *words, image, cwd=os.path.dirname(image)).out)


def assert_same_map(image, *words):
    # The holes of a file may change while the kernel writes it back.
    for name in image.parent.iterdir():
        with open(name, "rb") as file:
            os.fsync(file.fileno())
    got = ours(image, *words)
    assert without_compressed(got) == without_compressed(theirs(image, *words))
    return got


def shape(rows):
    return [(row["start"], row["length"], row["depth"], row["present"], row["zero"], row["data"]) for row in rows]


# ---- One layer -----------------------------------------------------------------

@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_some_allocated(tmp_path, fmt):
    image = make_raw(tmp_path / "image", 10 * CLUSTER)
    if fmt != "raw":
        image = make_image(tmp_path / "image", 10 * CLUSTER, fmt=fmt)
    qemu_io(image, f"write -P 1 {2 * CLUSTER} {CLUSTER}", f"write -P 2 {9 * CLUSTER} {CLUSTER}", fmt=fmt)
    rows = assert_same_map(image)
    assert [row["data"] for row in rows] == [False, True, False, True]
    assert [row["length"] // CLUSTER for row in rows] == [2, 1, 6, 1]


def test_a_part_of_a_cluster_is_a_cluster(tmp_path):
    image = make_image(tmp_path / "image", 4 * CLUSTER, writes=[f"write -P 1 {CLUSTER + 4096} 512"])
    rows = assert_same_map(image)
    assert [(row["start"], row["length"]) for row in rows if row["data"]] == [(CLUSTER, CLUSTER)]


def test_subclusters(tmp_path):
    image = make_image(tmp_path / "image", 4 * CLUSTER, options="extended_l2=on",
                       writes=["write -P 1 66k 2k", "write -z 72k 4k", "write -P 2 68k 2k", "write -P 3 126k 8k"])
    rows = assert_same_map(image)
    assert (66 * KIB, 4 * KIB) in [(row["start"], row["length"]) for row in rows if row["data"]]


def test_neighbours_merge_where_their_places_do(tmp_path):
    image = make_image(tmp_path / "image", 8 * CLUSTER,
                       writes=[f"write -P 1 {n * CLUSTER} {CLUSTER}" for n in (0, 1, 2, 5, 4, 3)])
    rows = assert_same_map(image)
    # Three in order, then three whose places run the other way.
    assert [row["length"] // CLUSTER for row in rows if row["data"]] == [3, 1, 1, 1]


@pytest.mark.parametrize("writes, zero_present", [
    ([], False),
    ([f"write -z 0 {CLUSTER}"], True),
    ([f"write -P 1 0 {CLUSTER}", f"write -z 0 {CLUSTER}"], True),
    ([f"write -P 1 0 {CLUSTER}", f"write -z -u 0 {CLUSTER}"], True),
    ([f"write -P 1 0 {CLUSTER}", f"discard 0 {CLUSTER}"], True),
])
def test_every_kind_of_zero(tmp_path, writes, zero_present):
    image = make_image(tmp_path / "image", 2 * CLUSTER, writes=writes)
    rows = assert_same_map(image)
    assert rows[0]["zero"] and not rows[0]["data"]
    assert rows[0]["present"] is zero_present


def test_zeroes_that_are_data(tmp_path):
    image = make_image(tmp_path / "image", 2 * CLUSTER, writes=[f"write -P 0 0 {CLUSTER}"])
    assert assert_same_map(image)[0]["data"]


def test_compressed_clusters_have_no_place(tmp_path):
    raw = make_raw(tmp_path / "raw", 8 * CLUSTER, [(0, compressible(3 * CLUSTER)), (5 * CLUSTER, os.urandom(CLUSTER))])
    qemu_img("convert", "-c", "-O", "qcow2", raw, tmp_path / "image")
    rows = assert_same_map(tmp_path / "image")
    assert any(row["compressed"] for row in rows)
    for row in rows:
        assert ("offset" in row) == (row["data"] and not row["compressed"]), row


def test_a_huge_empty_disk_is_one_row(tmp_path):
    image = make_image(tmp_path / "image", 16 * TIB, options="cluster_size=2M")
    assert shape(ours(image)) == [(0, 16 * TIB, 0, False, True, False)]


# ---- Several layers ------------------------------------------------------------

def over(path, size, base, base_format="qcow2", options="", writes=()):
    return make_image(path, size, backing=os.path.basename(base), backing_fmt=base_format, options=options,
                      writes=writes)


@pytest.mark.parametrize("base_size", [512, CLUSTER, 3 * CLUSTER, 3 * CLUSTER + 512, 3 * CLUSTER + 4096, 10 * CLUSTER,
                                       20 * CLUSTER])
@pytest.mark.parametrize("base_format", ["raw", "qcow2", "vmdk", "vdi"])
def test_short_long_and_unaligned_backing_files(tmp_path, base_size, base_format):
    base = make_raw(tmp_path / "base.raw", base_size, [(0, b"b" * base_size)])
    if base_format != "raw":
        base = tmp_path / f"base.{base_format}"
        qemu_img("convert", "-f", "raw", "-O", base_format, tmp_path / "base.raw", base)
    for number, writes in enumerate([(), (f"write -P 1 {2 * CLUSTER} {CLUSTER}", f"write -z {CLUSTER} 4k"),
                                     (f"write -z {5 * CLUSTER} {CLUSTER}",)]):
        image = over(tmp_path / f"top{number}", 10 * CLUSTER, base, base_format, writes=writes)
        assert_same_map(image)
        assert_same_disk(image)


def assert_same_disk(image):
    for program, name in ((imgtk, "ours"), (qemu_img, "theirs")):
        program("convert", "-O", "raw", image, image.parent / name)
    with open(image.parent / "ours", "rb") as one, open(image.parent / "theirs", "rb") as two:
        assert one.read() == two.read()
    (image.parent / "ours").unlink()
    (image.parent / "theirs").unlink()


def test_a_compressed_base(tmp_path):
    raw = make_raw(tmp_path / "raw", 10 * CLUSTER, [(0, compressible(8 * CLUSTER))])
    qemu_img("convert", "-c", "-O", "qcow2", raw, tmp_path / "base")
    image = over(tmp_path / "top", 12 * CLUSTER, "base", writes=[f"write -P 1 {CLUSTER} {CLUSTER}",
                                                                  f"write -z {4 * CLUSTER} {CLUSTER}"])
    rows = assert_same_map(image)
    assert [(row["depth"], row["compressed"]) for row in rows][:3] == [(1, True), (0, False), (1, True)]
    assert_same_disk(image)


def test_zeroes_over_data_and_data_over_zeroes(tmp_path):
    make_image(tmp_path / "base", 8 * CLUSTER, writes=[f"write -P 1 0 {4 * CLUSTER}",
                                                       f"write -z {4 * CLUSTER} {2 * CLUSTER}"])
    over(tmp_path / "middle", 8 * CLUSTER, "base", writes=[f"write -z {CLUSTER} {CLUSTER}",
                                                           f"write -P 2 {4 * CLUSTER} {CLUSTER}"])
    image = over(tmp_path / "top", 8 * CLUSTER, "middle", writes=[f"write -z {4 * CLUSTER} {CLUSTER}",
                                                                 f"write -P 3 {CLUSTER} 512"])
    rows = assert_same_map(image)
    assert {row["depth"] for row in rows} == {0, 2}
    assert_same_disk(image)


def test_mixed_formats_in_one_chain(tmp_path):
    raw = make_raw(tmp_path / "one.raw", 20 * CLUSTER + 512, [(CLUSTER, os.urandom(9 * CLUSTER))])
    qemu_img("convert", "-f", "raw", "-O", "vmdk", raw, tmp_path / "two.vmdk")
    over(tmp_path / "three", 30 * CLUSTER, "two.vmdk", "vmdk", "cluster_size=4k", ["write -P 3 100k 9k"])
    over(tmp_path / "four", 25 * CLUSTER, "three", "qcow2", "extended_l2=on", ["write -z 200k 3k", "write -P 4 1M 20k"])
    image = over(tmp_path / "five", 40 * CLUSTER, "four", "qcow2", "cluster_size=2M", ["write -P 5 2M 64k"])
    assert_same_map(image)
    assert_same_disk(image)


# ---- Parts and other forms -----------------------------------------------------

def make_chain(folder):
    make_image(folder / "base", 8 * CLUSTER, writes=[f"write -P 1 0 {5 * CLUSTER}"])
    over(folder / "top", 10 * CLUSTER, "base", writes=[f"write -P 2 {CLUSTER} {CLUSTER}",
                                                       f"write -z {3 * CLUSTER} {CLUSTER}"])


@pytest.fixture
def chain(tmp_path, fill):
    return fill(tmp_path, make_chain) / "top"


@pytest.mark.parametrize("start", [0, 512, CLUSTER, CLUSTER + 4096, 9 * CLUSTER, 10 * CLUSTER - 512])
@pytest.mark.parametrize("length", [512, CLUSTER, 3 * CLUSTER + 512, 100 * CLUSTER])
def test_a_part(chain, start, length):
    rows = assert_same_map(chain, f"--start-offset={start}", f"--max-length={length}")
    assert rows[0]["start"] == start
    assert sum(row["length"] for row in rows) == min(length, 10 * CLUSTER - start)


def test_jsonl_has_the_same_rows(chain):
    lines = [json.loads(line) for line in imgtk("map", "--output=jsonl", chain).out.splitlines()]
    end = 0
    for line in lines:
        assert line.keys() == {"start", "length", "allocated", "zero", "compressed"}
        assert line["start"] == end
        end += line["length"]
    assert end == 10 * CLUSTER
    for line in lines:
        rows = [row for row in ours(chain) if row["start"] < line["start"] + line["length"] and
                row["start"] + row["length"] > line["start"]]
        assert rows and all(row["zero"] == line["zero"] and row["present"] == line["allocated"] for row in rows), line


def test_an_empty_image(tmp_path):
    assert_same_map(make_image(tmp_path / "image", 0))
    assert shape(ours(tmp_path / "image")) == shape(theirs(tmp_path / "image"))


def test_beyond_the_end(chain):
    assert_same_map(chain, f"--start-offset={11 * CLUSTER}")
    imgtk_fails("map", "--start-offset=-1", chain)

"""Images changed in place, by imgtk and by qemu-img: the same disk, the same answers, nothing for check to find."""
import json
import shutil

import pytest
from imgtk_test import (KIB, MIB, compressible, digest, imgtk, imgtk_fails, make_image, make_raw, qemu_img, qemu_io)

LAYOUTS = {
    "plain": "", "v2": "compat=0.10", "tiny": "cluster_size=512", "large": "cluster_size=2M",
    "bits64": "refcount_bits=64", "bits8": "refcount_bits=8", "subclusters": "extended_l2=on,cluster_size=16k",
    "lazy": "lazy_refcounts=on",
}
SIZE = 2 * MIB + 512


def assert_sound(*images):
    """Nothing to find in any of them, not even a leak."""
    for image in images:
        result = qemu_img("check", "-f", "qcow2", image, code=None)
        assert result.code == 0, result
        imgtk("check", "-q", image)


def assert_same_disk(one, two, fmt="qcow2"):
    result = qemu_img("compare", "-f", fmt, "-F", fmt, one, two, code=None)
    assert result.code == 0 and "mismatch" not in result.out, result


def snapshots(image):
    return [line.split()[:2] for line in qemu_img("snapshot", "-l", image).out.splitlines()[2:]]


def backing_of(image):
    info = json.loads(qemu_img("info", "-f", "qcow2", "--output=json", "-U", image).out)
    return info.get("backing-filename"), info.get("backing-filename-format"), info["virtual-size"]


@pytest.fixture
def pair(tmp_path):
    """Runs one command by both tools on two copies of an image, which must stay the same disk and sound."""
    class Pair:
        ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"

        def make(self, *args, **options):
            make_image(self.ours, *args, **options)
            shutil.copy(self.ours, self.theirs)

        def write(self, *commands):
            for image in (self.ours, self.theirs):
                qemu_io(image, *commands, fmt="qcow2")

        def both(self, *words):
            one, two = imgtk(*words[:-1], self.ours, *words[-1]), qemu_img(*words[:-1], self.theirs, *words[-1])
            assert one.out == two.out
            assert_sound(self.ours)
            assert_same_disk(self.ours, self.theirs)

    return Pair()


# ---- Snapshots --------------------------------------------------------------------------

@pytest.mark.parametrize("layout", ["plain", "v2", "tiny", "bits8", "subclusters", "lazy"])
def test_snapshots(pair, layout):
    pair.make(SIZE, options=LAYOUTS[layout], writes=["write -P 1 0 300k", "write -P 2 1M 70k", "write -P 3 2M 512"])
    pair.both("snapshot", "-c", "one", [])
    pair.write("write -P 4 64k 200k", "write -z 1M 64k", "discard 200k 64k")
    pair.both("snapshot", "-c", "two words", [])
    pair.write("write -P 5 100k 10k", "write -P 6 1900k 148k")
    pair.both("snapshot", "-a", "one", [])
    pair.write("write -P 7 0 64k")
    pair.both("snapshot", "-a", "2", [])
    assert snapshots(pair.ours) == snapshots(pair.theirs)
    pair.both("snapshot", "-d", "one", [])
    pair.both("snapshot", "-a", "two words", [])
    pair.write("write -P 8 64k 64k")
    pair.both("snapshot", "-d", "two words", [])
    assert "TAG" not in imgtk("snapshot", "-l", pair.ours).out
    assert "TAG" not in qemu_img("snapshot", "-l", pair.ours).out


def test_snapshot_list_as_qemu_prints_it(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB)
    for name in ("one", "a name that is longer than its column", "ümläut"):
        imgtk("snapshot", "-c", name, image)
    ours = imgtk("snapshot", "-l", image).out
    assert ours.count("\n") == 5 and ours == qemu_img("snapshot", "-l", image).out
    assert imgtk("snapshot", image).out == ours


def test_snapshots_of_other_sizes(pair):
    pair.make(MIB, writes=["write -P 1 0 1M"])
    pair.both("snapshot", "-c", "small", [])
    pair.both("resize", ["3M"])
    pair.write("write -P 2 2M 1M")
    pair.both("snapshot", "-c", "large", [])
    pair.both("snapshot", "-a", "small", [])
    pair.both("snapshot", "-a", "large", [])
    pair.both("resize", "--shrink", ["64k"])
    pair.both("snapshot", "-a", "large", [])


def test_snapshot_of_compressed_clusters(tmp_path):
    raw = make_raw(tmp_path / "a.raw", 2 * MIB, [(0, compressible(MIB)), (1500 * KIB, compressible(90 * KIB, 2))])
    image = tmp_path / "a.qcow2"
    imgtk("convert", "-c", "-O", "qcow2", raw, image)
    before = digest(raw)
    imgtk("snapshot", "-c", "s", image)
    assert_sound(image)
    qemu_io(image, "write -P 9 0 1M", fmt="qcow2")
    imgtk("snapshot", "-a", "s", image)
    assert_sound(image)
    imgtk("snapshot", "-d", "s", image)
    assert_sound(image)
    imgtk("convert", "-O", "raw", image, tmp_path / "b.raw")
    assert digest(tmp_path / "b.raw") == before


def test_refcounts_that_are_too_narrow_for_snapshots(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB, options="refcount_bits=1", writes=["write 0 64k"])
    before = digest(image)
    imgtk_fails("snapshot", "-c", "s", image, match="refcounts of 1 bits")
    assert digest(image) == before


# ---- Sizes --------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", ["plain", "v2", "tiny", "large", "subclusters"])
def test_resize(tmp_path, layout):
    """Against a raw disk: what qemu-img cuts off within a cluster comes back when it grows again."""
    image, disk = tmp_path / "a.qcow2", tmp_path / "a.raw"
    make_image(image, SIZE, options=LAYOUTS[layout], writes=["write -P 1 0 300k", "write -P 3 2M 512"])
    make_raw(disk, SIZE, [(0, b"\1" * 300 * KIB), (2 * MIB, b"\3" * 512)])

    def resize(*sizes):
        for size in sizes:
            assert imgtk("resize", "--shrink", image, size).out == "Image resized.\n"
            qemu_img("resize", "-f", "raw", "--shrink", disk, size)
            assert_sound(image)
            assert "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", image, disk, code=None).out

    resize("+1M", "10M", "+512")
    for path, fmt in ((image, "qcow2"), (disk, "raw")):
        qemu_io(path, "write -P 4 9M 1M", fmt=fmt)
    resize("-300k", "2M", "100k", "64k", "0.5M", "9M")


@pytest.mark.parametrize("size", ["+1", "-1M", "3000001", "5M"])
def test_resize_of_raw_images(tmp_path, size):
    for name in ("ours", "theirs"):
        make_raw(tmp_path / name, 2 * MIB, [(0, b"x" * MIB)])
    one = imgtk("resize", "-f", "raw", "--shrink", tmp_path / "ours", size)
    two = qemu_img("resize", "-f", "raw", "--shrink", tmp_path / "theirs", size)
    assert one.out == two.out
    assert digest(tmp_path / "ours") == digest(tmp_path / "theirs")


@pytest.mark.parametrize("layout", ["plain", "v2", "subclusters", "tiny"])
def test_growth_hides_the_backing_file(tmp_path, layout):
    base = make_image(tmp_path / "base.qcow2", 4 * MIB, writes=["write -P 1 0 4M"])
    image = make_image(tmp_path / "a.qcow2", 600 * KIB + 512, options=LAYOUTS[layout], backing=base,
                       backing_fmt="qcow2", writes=["write -P 2 0 1k"])
    disk = tmp_path / "a.raw"
    qemu_img("convert", "-O", "raw", image, disk)
    imgtk("resize", image, "3M")
    assert_sound(image)
    qemu_img("resize", "-f", "raw", disk, "3M")
    assert "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", image, disk, code=None).out


def test_growth_shows_nothing_that_was_cut_off(tmp_path):
    """Within the last cluster too, where a compressed or plain cluster keeps its bytes."""
    raw = make_raw(tmp_path / "a.raw", MIB, [(0, b"\x11" * MIB)])
    for words in (["-c"], [], ["-c", "-o", "extended_l2=on"], ["-o", "extended_l2=on"]):
        for size in (100 * KIB, 101 * KIB + 512):
            image = tmp_path / "a.qcow2"
            imgtk("convert", *words, "-O", "qcow2", raw, image)
            imgtk("resize", "--shrink", image, size)
            imgtk("resize", image, "1M")
            assert_sound(image)
            imgtk("convert", "-O", "raw", image, tmp_path / "b.raw")
            assert (tmp_path / "b.raw").read_bytes() == b"\x11" * size + bytes(MIB - size), (words, size)


def test_huge_growth_and_back(tmp_path):
    """Past what one cluster of the L1 table covers; the file stays small."""
    image = make_image(tmp_path / "a.qcow2", MIB, options="cluster_size=4k", writes=["write -P 1 0 1M"])
    imgtk("resize", image, "1T")
    assert_sound(image)
    qemu_io(image, "write -P 2 900G 64k", "read -P 1 0 1M", fmt="qcow2")
    imgtk("resize", "--shrink", image, "1M")
    assert_sound(image)
    assert image.stat().st_size < 2 * MIB


# ---- Rebase ----------------------------------------------------------------------------------

def make_bases(folder):
    """Bases that differ in content and length, and an overlay of each kind of extent over the first."""
    make_image(folder / "a.qcow2", 2 * MIB, options="cluster_size=4k",
               writes=["write -P 1 0 1M", "write -P 2 1200k 300k"])
    make_image(folder / "b.qcow2", 2 * MIB, writes=["write -P 1 0 512k", "write -P 3 1M 1M"])
    make_image(folder / "short.qcow2", MIB, writes=["write -P 1 0 700k"])
    make_image(folder / "long.qcow2", 3 * MIB, writes=["write -P 6 0 3M"])
    make_raw(folder / "r.raw", 2 * MIB, [(0, b"\1" * MIB)])
    make_image(folder / "above.qcow2", 2 * MIB, backing="a.qcow2", backing_fmt="qcow2", writes=["write -P 5 64k 64k"])


@pytest.mark.parametrize("layout, new", [
    *(("plain", new) for new in ("b.qcow2", "short.qcow2", "long.qcow2", "r.raw", "above.qcow2", "")),
    *((layout, new) for layout in ("v2", "tiny", "subclusters", "bits64") for new in ("b.qcow2", "")),
])
def test_rebase(tmp_path, fill, layout, new):
    fill(tmp_path, make_bases)
    for name in ("ours", "theirs"):
        make_image(tmp_path / name, SIZE, options=LAYOUTS[layout], backing="a.qcow2", backing_fmt="qcow2",
                   writes=["write -P 4 100k 100k"] + (["write -z 900k 30k"] if layout != "v2" else []))
    shutil.copy(tmp_path / "ours", tmp_path / "before")
    words = ["rebase", "-b", new] + (["-F", "raw" if new.endswith("raw") else "qcow2"] if new else [])
    assert imgtk(*words, tmp_path / "ours").out == ""
    qemu_img(*words, tmp_path / "theirs")
    assert_sound(tmp_path / "ours")
    assert_same_disk(tmp_path / "ours", tmp_path / "before")
    assert backing_of(tmp_path / "ours") == backing_of(tmp_path / "theirs")


def test_rebase_to_the_grandparent(tmp_path, fill):
    fill(tmp_path, make_bases)
    image = make_image(tmp_path / "o.qcow2", 2 * MIB, backing="above.qcow2", backing_fmt="qcow2",
                       writes=["write -P 7 0 4k"])
    shutil.copy(image, tmp_path / "before")
    size = image.stat().st_size
    imgtk("rebase", "-b", "a.qcow2", "-F", "qcow2", image)
    assert_sound(image)
    assert_same_disk(image, tmp_path / "before")
    assert image.stat().st_size - size < 400 * KIB, "what both chains share was written"


@pytest.mark.parametrize("compress", [["-c"], []], ids=["compressed", "plain"])
def test_rebase_beside_a_common_base(tmp_path, compress):
    """What two overlays take from one file below is not read, which a part that cannot be read shows."""
    raw = make_raw(tmp_path / "raw", 8 * MIB, [(0, compressible(8 * MIB))])
    base = tmp_path / "base"
    imgtk("convert", *compress, "-O", "qcow2", raw, base)
    for name, pattern in (("one", 3), ("two", 4)):
        make_image(tmp_path / name, 8 * MIB, backing="base", backing_fmt="qcow2",
                   writes=["write -P 2 1M 64k", f"write -P {pattern} 3M 64k"])
    image = make_image(tmp_path / "o.qcow2", 8 * MIB, backing="one", backing_fmt="qcow2", writes=["write -P 7 0 4k"])
    qemu_img("convert", "-O", "qcow2", image, tmp_path / "before")
    whole = base.read_bytes()
    if compress:
        base.write_bytes(whole[:len(whole) * 6 // 10] + b"\xff" * (len(whole) - len(whole) * 6 // 10))
        imgtk_fails("compare", image, tmp_path / "before", code=4)
    imgtk("rebase", "-b", "two", "-F", "qcow2", image)
    base.write_bytes(whole)
    assert_sound(image)
    assert_same_disk(image, tmp_path / "before")
    assert image.stat().st_size < MIB


def test_rebase_of_the_name_alone(tmp_path, fill):
    fill(tmp_path, make_bases)
    image = make_image(tmp_path / "o.qcow2", 2 * MIB, backing="a.qcow2", backing_fmt="qcow2",
                       writes=["write -P 7 0 4k"])
    size = image.stat().st_size
    for name, fmt in (("nx/" + "n" * 900, "raw"), ("b.qcow2", "qcow2"), ("", None)):
        imgtk("rebase", "-u", "-b", name, *(["-F", fmt] if fmt else []), image)
        assert backing_of(image) == (name or None, fmt, 2 * MIB)
        assert image.stat().st_size == size
        imgtk("check", "-q", image)
    assert_sound(image)
    imgtk("rebase", "-u", "-b", "a.qcow2", "-F", "qcow2", image)
    imgtk("rebase", "-u", image)
    assert backing_of(image)[0] is None


def test_names_of_features_make_room(tmp_path, fill):
    fill(tmp_path, make_bases)
    image = make_image(tmp_path / "o.qcow2", 2 * MIB, options="cluster_size=512")
    imgtk("rebase", "-b", "b.qcow2", "-F", "qcow2", image)
    assert_sound(image)
    assert backing_of(image)[:2] == ("b.qcow2", "qcow2")
    before = digest(image)
    imgtk_fails("rebase", "-u", "-b", "n" * 500, "-F", "raw", image, match="one cluster of 512 bytes")
    assert digest(image) == before


def test_rebase_onto_its_own_overlay_is_refused(tmp_path, fill):
    fill(tmp_path, make_bases)
    before = digest(tmp_path / "a.qcow2")
    imgtk_fails("rebase", "-b", "above.qcow2", "-F", "qcow2", tmp_path / "a.qcow2", match="overlay of the image itself")
    assert digest(tmp_path / "a.qcow2") == before


# ---- Commit -----------------------------------------------------------------------------------

OVERLAY_WRITES = ["write -P 4 100k 100k", "write -P 5 1M 4k", "write -P 6 1900k 148k", "write -P 7 2M 512"]


def make_stack(folder, base_layout, top_layout, base_size=SIZE, base_fmt="qcow2", snapshot=False):
    if base_fmt == "raw":
        make_raw(folder / "base", base_size, [(0, compressible(base_size - 100 * KIB))])
    else:
        make_image(folder / "base", base_size, options=LAYOUTS[base_layout],
                   writes=["write -P 1 0 1M", "write -P 2 1200k 300k"])
    if snapshot:
        qemu_img("snapshot", "-c", "s", folder / "base")
    zeroes = ["write -z 300k 130k"] if top_layout != "v2" else []
    make_image(folder / "top", SIZE, options=LAYOUTS[top_layout], backing="base", backing_fmt=base_fmt,
               writes=OVERLAY_WRITES + zeroes)


@pytest.mark.parametrize("base, top", [
    *((base, "tiny") for base in ("plain", "v2", "tiny", "large", "subclusters", "bits64", "raw")),
    *(("plain", top) for top in ("plain", "v2", "subclusters")), ("raw", "subclusters"), ("subclusters", "subclusters"),
])
def test_commit(tmp_path, base, top):
    make_stack(tmp_path, base, top, base_fmt="raw" if base == "raw" else "qcow2")
    qemu_img("convert", "-O", "qcow2", tmp_path / "top", tmp_path / "before")
    assert imgtk("commit", tmp_path / "top").out == "Image committed.\n"
    assert_sound(tmp_path / "top", *([] if base == "raw" else [tmp_path / "base"]))
    assert_same_disk(tmp_path / "top", tmp_path / "before")
    rows = json.loads(qemu_img("map", "--output=json", tmp_path / "top").out)
    assert all(row["depth"] > 0 or not row["present"] for row in rows)
    fmt = "raw" if base == "raw" else "qcow2"
    qemu_img("compare", "-f", fmt, "-F", "qcow2", tmp_path / "base", tmp_path / "before")


@pytest.mark.parametrize("base_size", [MIB, 300 * KIB + 512, 3 * MIB])
@pytest.mark.parametrize("base_fmt", ["raw", "qcow2"])
def test_commit_into_another_size(tmp_path, base_size, base_fmt):
    if base_size > 2 * MIB or base_fmt == "raw":
        make_stack(tmp_path, "plain", "tiny", base_size, base_fmt)
    else:
        make_image(tmp_path / "base", base_size, writes=[f"write -P 1 0 {base_size}"])
        make_image(tmp_path / "top", SIZE, backing="base", backing_fmt="qcow2", writes=OVERLAY_WRITES)
    for name in ("top", "base"):
        shutil.copy(tmp_path / name, tmp_path / f"{name}.theirs")
    qemu_img("rebase", "-u", "-b", "base.theirs", "-F", base_fmt, tmp_path / "top.theirs")
    imgtk("commit", tmp_path / "top")
    qemu_img("commit", tmp_path / "top.theirs")
    assert_sound(tmp_path / "top")
    assert_same_disk(tmp_path / "base", tmp_path / "base.theirs", base_fmt)
    assert_same_disk(tmp_path / "top", tmp_path / "top.theirs")


def test_commit_leaves_snapshots_of_the_base_alone(tmp_path):
    make_stack(tmp_path, "plain", "plain", snapshot=True)
    qemu_img("convert", "-O", "qcow2", "-l", "s", tmp_path / "base", tmp_path / "s")
    qemu_img("convert", "-O", "qcow2", tmp_path / "top", tmp_path / "before")
    imgtk("commit", tmp_path / "top")
    assert_sound(tmp_path / "base", tmp_path / "top")
    assert_same_disk(tmp_path / "base", tmp_path / "before")
    qemu_img("snapshot", "-a", "s", tmp_path / "base")
    assert_same_disk(tmp_path / "base", tmp_path / "s")


def test_commit_into_compressed_clusters(tmp_path):
    raw = make_raw(tmp_path / "a.raw", SIZE, [(0, compressible(SIZE))])
    imgtk("convert", "-c", "-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k", raw, tmp_path / "base")
    make_image(tmp_path / "top", SIZE, backing="base", backing_fmt="qcow2", options="cluster_size=512",
               writes=["write -P 4 1k 512", "write -z 20k 1k", *OVERLAY_WRITES])
    qemu_img("convert", "-O", "qcow2", tmp_path / "top", tmp_path / "before")
    imgtk("commit", tmp_path / "top")
    assert_sound(tmp_path / "base", tmp_path / "top")
    assert_same_disk(tmp_path / "base", tmp_path / "before")


def test_commit_into_a_deeper_layer(tmp_path, fill):
    fill(tmp_path, make_bases)
    top = make_image(tmp_path / "top.qcow2", 2 * MIB, backing="above.qcow2", backing_fmt="qcow2",
                     writes=["write -P 7 0 4k"])
    qemu_img("convert", "-O", "qcow2", top, tmp_path / "before")
    above = digest(tmp_path / "above.qcow2"), digest(top)
    imgtk("commit", "-b", tmp_path / "a.qcow2", top)
    assert (digest(tmp_path / "above.qcow2"), digest(top)) == above
    assert_sound(tmp_path / "a.qcow2")
    assert_same_disk(tmp_path / "a.qcow2", tmp_path / "before")
    imgtk_fails("commit", "-b", tmp_path / "b.qcow2", top, match="Did not find")


def test_commit_that_keeps_the_image(tmp_path):
    make_stack(tmp_path, "plain", "plain")
    before = digest(tmp_path / "top")
    imgtk("commit", "-d", tmp_path / "top")
    assert digest(tmp_path / "top") == before
    assert_same_disk(tmp_path / "top", tmp_path / "base")


def test_empty_image_is_small(tmp_path):
    raw = make_raw(tmp_path / "base", 8 * MIB)
    top = make_image(tmp_path / "top", 8 * MIB, backing=raw, backing_fmt="raw", writes=["write -P 1 0 8M"])
    imgtk("commit", top)
    assert_sound(top)
    assert top.stat().st_size <= 512 * KIB
    assert raw.read_bytes() == b"\1" * 8 * MIB


def test_refcount_table_that_grows(tmp_path):
    """A cluster of it counts 8 MiB of the file here."""
    make_image(tmp_path / "base", 9 * MIB, options="cluster_size=512")
    make_image(tmp_path / "top", 9 * MIB, backing="base", backing_fmt="qcow2", writes=["write -P 1 0 9M"])
    imgtk("commit", tmp_path / "top")
    imgtk("snapshot", "-c", "s", tmp_path / "base")
    assert_sound(tmp_path / "base")
    qemu_io(tmp_path / "base", "read -P 1 0 9M", fmt="qcow2")


# ---- Data files and bitmaps ---------------------------------------------------------------------

@pytest.mark.parametrize("raw", ["on", "off"])
def test_external_data_file(tmp_path, raw):
    image = make_image(tmp_path / "a.qcow2", MIB, options=f"data_file={tmp_path}/a.data,data_file_raw={raw}",
                       writes=["write -P 1 0 1M"])
    imgtk("resize", image, "2M")
    top = make_image(tmp_path / "top", 2 * MIB, backing=image, backing_fmt="qcow2",
                     writes=["write -P 2 64k 64k", "write -P 3 1900k 148k", "write -z 512k 256k"])
    qemu_img("convert", "-O", "raw", top, tmp_path / "before")
    imgtk("commit", top)
    assert_sound(image, top)
    assert_same_disk(image, image)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "before", image)
    if raw == "on":
        assert digest(tmp_path / "a.data") == digest(tmp_path / "before")
    imgtk("resize", "--shrink", image, "100k")
    assert_sound(image)
    imgtk_fails("snapshot", "-c", "s", image, match="external data file cannot have snapshots")


def dirty_bits(path):
    """{name: (flags, granularity, the bits that are set)} of a qcow2 image's bitmaps, from its bytes."""
    data, out = path.read_bytes(), {}
    cluster = 1 << int.from_bytes(data[20:24], "big")

    def number(at, length):
        return int.from_bytes(data[at:at + length], "big")

    at = number(100, 4)
    while number(at, 4) != 0x23852875:
        assert number(at, 4) != 0, "no bitmaps"
        at += 8 + (number(at + 4, 4) + 7) // 8 * 8
    entry = number(at + 24, 8)
    for _ in range(number(at + 8, 4)):
        bits, extra = set(), number(entry + 20, 4)
        for i in range(number(entry + 8, 4)):
            offset = number(number(entry, 8) + 8 * i, 8)
            part = b"\xff" * cluster if offset == 1 else data[offset:offset + cluster] if offset else b""
            bits |= {(i * cluster + j) * 8 + k for j, byte in enumerate(part) for k in range(8) if byte >> k & 1}
        name = data[entry + 24 + extra:entry + 24 + extra + number(entry + 18, 2)].decode()
        out[name] = number(entry + 12, 4), 1 << data[entry + 17], bits
        entry += (24 + extra + len(name) + 7) // 8 * 8
    return out


def test_list_of_bitmaps(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB)
    assert imgtk("bitmap", image).out == "" and json.loads(imgtk("bitmap", "--output=json", image).out) == []
    qemu_img("bitmap", "--add", image, "records")
    qemu_img("bitmap", "--add", "--disable", "-g", "128k", image, "rests")
    rows = [{"flags": ["auto"], "name": "records", "granularity": 65536},
            {"flags": [], "name": "rests", "granularity": 131072}]
    assert json.loads(imgtk("bitmap", "--output=json", image).out) == rows
    assert imgtk("bitmap", image).out.splitlines()[1:] == ["      64 KiB  auto            records",
                                                            "     128 KiB  -               rests"]


def test_bitmaps_record_what_commit_writes(tmp_path):
    """The same bits as QEMU sets; those of a bitmap that is disabled stay."""
    base = make_image(tmp_path / "base", 3 * MIB, writes=["write -P 1 0 1M"])
    for words in (["records"], ["-g", "4k", "fine"], ["--disable", "rests"]):
        qemu_img("bitmap", "--add", *words[:-1], base, words[-1])
    qemu_io(base, "write -P 2 2900k 10k", fmt="qcow2")
    top = make_image(tmp_path / "top", 3 * MIB, backing="base", backing_fmt="qcow2",
                     writes=["write -P 3 128k 64k", "write -z 1M 192k", "write -P 4 2M 8k"])
    for name in ("base", "top"):
        shutil.copy(tmp_path / name, tmp_path / f"{name}.theirs")
    qemu_img("rebase", "-u", "-b", "base.theirs", "-F", "qcow2", tmp_path / "top.theirs")
    imgtk("commit", top)
    qemu_img("commit", tmp_path / "top.theirs")
    assert_sound(base)
    ours, theirs = dirty_bits(base), dirty_bits(tmp_path / "base.theirs")
    assert ours == theirs and ours["records"][2] and not ours["rests"][2]
    qemu_img("bitmap", "--disable", base, "records")


def test_bitmaps_have_the_length_of_the_disk(pair):
    """Also past what one cluster of bits stands for."""
    pair.make(MIB, options="cluster_size=4k")
    for image in (pair.ours, pair.theirs):
        qemu_img("bitmap", "--add", "-g", "512", image, "b")
    pair.write("write -P 1 0 512", "write -P 1 1000k 24k")
    for size in ("2M", "900M", "1M", "1020k", "64M"):
        pair.both("resize", "--shrink", [size])
        assert dirty_bits(pair.ours) == dirty_bits(pair.theirs), size
    qemu_img("bitmap", "--disable", pair.ours, "b")
    before = digest(pair.ours)
    imgtk_fails("resize", pair.ours, "3T", match="bitmap of a disk")
    assert digest(pair.ours) == before


def test_bitmaps_record_that_a_snapshot_was_applied(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 40 * MIB, options="cluster_size=4k")
    qemu_img("snapshot", "-c", "s", image)
    qemu_img("bitmap", "--add", "-g", "512", image, "b")
    imgtk("snapshot", "-a", "s", image)
    assert_sound(image)
    assert dirty_bits(image)["b"][2] == set(range(80 * KIB))
    qemu_img("bitmap", "--disable", image, "b")


def test_bitmaps_of_an_empty_disk(tmp_path):
    """QEMU opens none but those that are in use."""
    image = make_image(tmp_path / "a.qcow2", 0)
    imgtk("snapshot", "-c", "s", image)
    qemu_img("resize", image, "1M")
    qemu_img("bitmap", "--add", image, "b")
    for words in (("snapshot", "-a", "s", image), ("resize", image, "3M")):
        imgtk(*words)
        assert_sound(image)
        assert dirty_bits(image)["b"][0] == 3


def test_bitmaps_survive_a_new_backing_file(tmp_path, fill):
    fill(tmp_path, make_bases)
    image = make_image(tmp_path / "o.qcow2", 2 * MIB, backing="a.qcow2", backing_fmt="qcow2")
    qemu_img("bitmap", "--add", image, "b")
    rows = imgtk("bitmap", "--output=json", image).out
    for words in (["-u"], []):
        imgtk("rebase", *words, "-b", "b.qcow2" if words else "", *(["-F", "qcow2"] if words else []), image)
        assert_sound(image)
        assert imgtk("bitmap", "--output=json", image).out == rows


# ---- What is refused -------------------------------------------------------------------------------

def test_corrupt_images_are_refused(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB, writes=["write -P 1 0 1M"])
    data = bytearray(image.read_bytes())
    data[2 * 65536:2 * 65536 + 32] = bytes(32)  # the refcounts of what is in use
    image.write_bytes(data)
    for words in (["snapshot", "-c", "s", image], ["resize", "--shrink", image, "64k"]):
        imgtk_fails(*words, match="errors: repair it with check -r all first")
        assert image.read_bytes() == bytes(data)
    data[79] |= 2  # the corrupt bit
    image.write_bytes(data)
    imgtk_fails("resize", image, "2M", match="marked as corrupt")
    assert image.read_bytes() == bytes(data)


def test_dirty_images_are_repaired_first(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB, options="lazy_refcounts=on", writes=["write -P 1 0 512k"])
    data = bytearray(image.read_bytes())
    data[79] |= 1
    data[2 * 65536 + 8:2 * 65536 + 24] = bytes(16)
    image.write_bytes(data)
    imgtk("snapshot", "-c", "s", image)
    assert_sound(image)
    qemu_io(image, "read -P 1 0 512k", fmt="qcow2")


def test_unknown_autoclear_bits_are_cleared(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB)
    data = bytearray(image.read_bytes())
    data[88] = 0x80
    image.write_bytes(data)
    imgtk("resize", image, "2M")
    assert image.read_bytes()[88:96] == bytes(8)


# ---- Threads ---------------------------------------------------------------------------------------

@pytest.mark.threads
def test_pieces_that_are_read_ahead(tmp_path):
    """Many pieces, some of them compressed, go into place in order whatever thread has read them."""
    size = 24 * MIB
    pieces = [(0, compressible(3 * MIB)), (7 * MIB, b"x" * 9 * MIB), (size - 5, b"12345")]
    raw = make_raw(tmp_path / "a.raw", size, pieces)
    imgtk("convert", "-c", "-O", "qcow2", raw, tmp_path / "base")
    imgtk("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", tmp_path / "top", size)
    imgtk("rebase", "-b", "", tmp_path / "top")
    imgtk("compare", "-F", "raw", tmp_path / "top", raw)
    imgtk("create", "-q", "-f", "raw", tmp_path / "empty", size)
    imgtk("rebase", "-u", "-b", "empty", "-F", "raw", tmp_path / "top")
    imgtk("commit", tmp_path / "top")
    assert digest(tmp_path / "empty") == digest(raw)

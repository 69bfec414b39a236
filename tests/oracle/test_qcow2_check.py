"""check of qcow2 images: what qemu-img's finds, in the same numbers; and repairs that qemu-img then finds no fault with."""
import json
import random
import re
import struct

import pytest
from imgtk_test import (KIB, MIB, TIB, assert_same_bytes, compressible, environment, imgtk, make_image, make_raw,
                        peak_memory, qemu_img, qemu_io)

MEMORY = 256 * MIB
COPIED, COMPRESSED, OFFSET = 1 << 63, 1 << 62, 0x00fffffffffffe00


def ours(image, *options, code=None):
    result = imgtk("check", "--output=json", *options, image, code=code, memory=MEMORY)
    return result.code, json.loads(result.out)


def theirs(image, *options):
    result = qemu_img("check", "--output=json", *options, image, code=None)
    return result.code, json.loads(result.out)


def assert_same_check(image):
    assert ours(image) == theirs(image)


class Image:
    """The bytes of an image and where its tables are."""

    def __init__(self, path):
        self.path = path
        self.data = bytearray(path.read_bytes())
        self.cluster_size = 1 << struct.unpack_from(">I", self.data, 20)[0]
        self.l1_size, self.l1, self.refcounts = struct.unpack_from(">IQQ", self.data, 36)
        self.l2 = self.get(self.l1) & OFFSET
        self.block = self.get(self.refcounts)

    def get(self, at, form=">Q"):
        return struct.unpack_from(form, self.data, at)[0]

    def put(self, at, value, form=">Q"):
        struct.pack_into(form, self.data, at, value)

    def refcount(self, cluster, value=None):
        if value is not None:
            self.put(self.block + 2 * cluster, value, ">H")
        return self.get(self.block + 2 * cluster, ">H")

    def cluster(self, index):
        return (self.get(self.l2 + 8 * index) & OFFSET) // self.cluster_size

    def write(self):
        self.path.write_bytes(self.data)
        return self.path


def snapshots_of(image):
    """Where the L1 table of each snapshot is."""
    count, at = struct.unpack_from(">IQ", image.data, 60)
    for _ in range(count):
        l1, _, id_length, name_length = struct.unpack_from(">QIHH", image.data, at)
        yield l1
        at += (40 + image.get(at + 36, ">I") + id_length + name_length + 7) // 8 * 8


def random_writes(seed, size, count):
    rng = random.Random(seed)
    for _ in range(count):
        offset = rng.randrange(0, size // 512) * 512
        length = min(rng.randrange(1, 40) * 512, size - offset)
        yield f"{rng.choice(('write -P 5', 'write -P 6', 'write -z', 'write -z -u', 'discard'))} {offset} {length}"


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=4k", "", "cluster_size=2M", "extended_l2=on",
                                     "compat=0.10", "refcount_bits=1", "refcount_bits=2", "refcount_bits=8",
                                     "refcount_bits=64,cluster_size=4k", "preallocation=metadata", "lazy_refcounts=on"])
def test_sound(tmp_path, options):
    image = make_image(tmp_path / "a.qcow2", 8 * MIB, options=options)
    assert_same_check(image)
    qemu_io(image, *(w for w in random_writes(1, 8 * MIB, 40) if "0.10" not in options or "-z" not in w))
    assert_same_check(image)
    if options != "refcount_bits=1":
        qemu_img("snapshot", "-c", "one", image)
        qemu_io(image, "write -P 9 0 3M", "write -P 9 5M 3k")
        assert_same_check(image)
    assert ours(image)[0] == 0


@pytest.mark.parametrize("options", ["", "compression_type=zstd", "extended_l2=on", "cluster_size=2M", "cluster_size=4k"])
def test_sound_compressed(tmp_path, options):
    raw = make_raw(tmp_path / "disk.raw", 9 * MIB, [(0, compressible(3 * MIB)), (5 * MIB, compressible(2 * MIB))])
    image = tmp_path / "a.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", *(["-o", options] if options else []), raw, image)
    assert_same_check(image)
    qemu_img("snapshot", "-c", "one", image)
    qemu_io(image, "write -P 9 100k 3M")
    qemu_img("snapshot", "-c", "two", image)
    qemu_img("snapshot", "-d", "one", image)
    assert_same_check(image)


def test_sound_bitmaps(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 8 * MIB, writes=["write 0 1M"])
    for name in ("one", "two"):
        qemu_img("bitmap", "--add", "-g", "64k", image, name)
    qemu_io(image, "write 3M 1M")
    assert_same_check(image)


def test_sound_data_file(tmp_path):
    image = make_image(tmp_path / "a.qcow2", 8 * MIB, options=f"data_file={tmp_path}/data", writes=["write 0 1M"])
    code, found = ours(image)
    assert code == 0 and found["allocated-clusters"] == 16
    assert found["image-end-offset"] == theirs(image)[1]["image-end-offset"]


def test_more_references_than_a_byte_counts(tmp_path):
    image = make_image(tmp_path / "a.qcow2", MIB, options="cluster_size=4k", writes=["write 0 8k"])
    for number in range(80):
        qemu_img("snapshot", "-c", str(number), image)
    assert_same_check(image)


@pytest.fixture
def image(tmp_path):
    path = make_image(tmp_path / "a.qcow2", 2 * MIB, options="cluster_size=4k",
                      writes=["write -P 1 0 64k", "write -P 2 100k 8k", "write -P 3 1M 64k"])
    return Image(path)


def leak(image):
    for index in (1, 9):
        image.put(image.l2 + 8 * index, 0)


def high(image):
    """Counts above the references of clusters in use."""
    image.refcount(image.cluster(2), 2)
    image.refcount(image.cluster(3), 5)


def drop_table(image):
    """An L2 table is lost: it and all of its data leak."""
    image.put(image.l1, 0)


def copied_nothing(image):
    """An L1 entry without a table says that the table may be written in place: that would be the header."""
    image.put(image.l1, COPIED)


def low(image):
    for index in (5, 6, 8):
        image.refcount(image.cluster(index), 0)


def shared(image):
    """Two guest clusters in one host cluster."""
    image.put(image.l2 + 8 * 4, image.get(image.l2 + 8 * 7))


def flags(image):
    for index in (10, 12):
        image.put(image.l2 + 8 * index, image.get(image.l2 + 8 * index) & ~COPIED)
    image.put(image.l1, image.get(image.l1) & ~COPIED)


def everything(image):
    leak(image)
    high(image)
    low(image)
    shared(image)
    flags(image)


def dirty(image):
    low(image)
    image.data[79] |= 3


def no_block(image):
    """The refcount block is gone: all counts are 0."""
    image.put(image.refcounts, 0)


def block_outside(image):
    image.put(image.refcounts, 1 << 40)


def block_unaligned(image):
    image.put(image.refcounts, image.block + 512)


DAMAGE = {"leak": leak, "high": high, "drop_table": drop_table,
          "copied_nothing": copied_nothing, "low": low, "shared": shared, "flags": flags, "everything": everything,
          "dirty": dirty, "no_block": no_block, "block_outside": block_outside, "block_unaligned": block_unaligned}
SAME_NUMBERS = ("leak", "high", "drop_table", "low", "flags", "no_block")


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found(image, kind):
    DAMAGE[kind](image)
    image.write()
    code, found = ours(image.path)
    if kind in ("leak", "drop_table"):
        assert code == 3 and found["leaks"] > 0 and "corruptions" not in found
    else:
        assert code == 2 and found["corruptions"] > 0
    if kind in SAME_NUMBERS:
        assert (code, found) == theirs(image.path)


@pytest.mark.parametrize("kind", DAMAGE)
def test_repair(image, tmp_path, kind):
    DAMAGE[kind](image)
    image.write()
    before, after = tmp_path / "before", tmp_path / "after"
    imgtk("convert", "-O", "raw", image.path, before)
    code, found = ours(image.path, "-r", "all")
    assert code == 0, found
    assert found.get("leaks-fixed", 0) + found.get("corruptions-fixed", 0) > 0
    assert_same_check(image.path)
    assert theirs(image.path)[0] == 0
    imgtk("convert", "-O", "raw", image.path, after)
    assert_same_bytes(before, after)
    assert image.path.read_bytes()[79] == 0
    # What is written into it now harms nothing else.
    qemu_io(image.path, "write -P 77 16k 4k", "write -P 78 1500k 64k")
    if kind not in ("shared", "everything"):  # qemu leaves the other user of a shared cluster without its flag
        assert theirs(image.path)[0] == 0
    qemu_img("convert", "-O", "raw", image.path, after)
    expected = bytearray(before.read_bytes())
    expected[16 * KIB:20 * KIB] = b"\x4d" * 4 * KIB
    expected[1500 * KIB:1564 * KIB] = b"\x4e" * 64 * KIB
    assert after.read_bytes() == expected


def compressed_with_subclusters(path):
    make_image(path, MIB, options="extended_l2=on", writes=["write -c -P 7 0 64k"])
    image = Image(path)
    image.put(image.l2 + 8, 1)
    return image


def incomplete_snapshot(path):
    """An entry more than there is: zeroes, which have no extra data."""
    make_image(path, MIB, writes=["write 0 64k"])
    qemu_img("snapshot", "-c", "one", path)
    qemu_io(path, "write 0 64k")
    image = Image(path)
    image.put(60, 2, ">I")
    return image


def unaligned_bitmap(path):
    make_image(path, MIB)
    qemu_img("bitmap", "--add", path, "one")
    image = Image(path)
    table = image.data.rindex(b"\0\0\0\1\0\0\0\2\1\x10\0\3") - 8  # one entry, flags auto, type, granularity, name
    image.put(table, image.get(table) + 512)
    return image


def bitmap_entry(path, offset, value):
    """An image with a bitmap, a field of whose entry in the directory is changed."""
    make_image(path, MIB)
    qemu_img("bitmap", "--add", path, "one")
    image = Image(path)
    image.put(image.data.rindex(b"\0\0\0\1\0\0\0\2\1\x10\0\3") + offset, value, ">I")
    return image


def bitmap_without_a_table(path):
    return bitmap_entry(path, 0, 0)


def bitmap_too_long(path):
    return bitmap_entry(path, 0, 2)


def bitmap_with_reserved_flags(path):
    return bitmap_entry(path, 4, 2 | 1 << 9)


def flag_of_nothing_in_a_snapshot(path):
    """QEMU takes the header for the table, and would change it when the snapshot is applied."""
    make_image(path, 4 * MIB, options="cluster_size=4k", writes=["write 0 64k"])
    qemu_img("snapshot", "-c", "one", path)
    qemu_io(path, "write 0 64k")
    image = Image(path)
    image.put(next(snapshots_of(image)) + 8, COPIED)
    return image


REFUSED = (unaligned_bitmap, bitmap_without_a_table, bitmap_too_long, bitmap_with_reserved_flags)


@pytest.mark.parametrize("damage", [compressed_with_subclusters, incomplete_snapshot, *REFUSED,
                                    flag_of_nothing_in_a_snapshot])
def test_other_damage_is_found(tmp_path, damage):
    """And it is not what a repair mends."""
    path = damage(tmp_path / "a.qcow2").write()
    for options in ((), ("-r", "all")):
        code, found = ours(path, *options)
        assert code == 2 and found["corruptions"] == 1
        assert qemu_img("check", path, code=None).code == (1 if damage in REFUSED else 2)


@pytest.mark.parametrize("options", ["", ",data_file_raw=on", ",extended_l2=on"])
def test_flags_with_a_data_file(tmp_path, options):
    """Its clusters are shared with nothing, so that the flag has to be there."""
    path = make_image(tmp_path / "a.qcow2", 2 * MIB, options=f"data_file={tmp_path}/data{options}",
                      writes=["write -P 5 64k 1M"])
    image = Image(path)
    step = 16 if "extended" in options else 8
    for index in (3, 4):
        image.put(image.l2 + step * index, image.get(image.l2 + step * index) & ~COPIED)
    image.write()
    imgtk("convert", "-O", "raw", path, tmp_path / "before")
    assert ours(path)[1]["corruptions"] == theirs(path)[1]["corruptions"] == 2
    code, found = ours(path, "-r", "all")
    assert code == 0 and found["corruptions-fixed"] == 2
    assert ours(path)[0] == theirs(path)[0] == 0
    imgtk("convert", "-O", "raw", path, tmp_path / "after")
    assert_same_bytes(tmp_path / "before", tmp_path / "after")


# ---- Many tables, many threads --------------------------------------------------------------

def shared_table(path):
    """Ten snapshots and the active state share one of two tables, and some of them the other."""
    make_image(path, 64 * KIB, options="cluster_size=512", writes=["write -P 1 0 64k"])
    for number in range(10):
        qemu_img("snapshot", "-c", str(number), path)
        if number == 4:
            qemu_io(path, "write -P 2 0 4k", fmt="qcow2")
    return Image(path)


def shared_and_low(image):
    for index in range(64):
        image.refcount(image.cluster(index), 1)


def shared_and_high(image):
    for index in range(64):
        image.refcount(image.cluster(index), 12)


def shared_and_faulty(image):
    """Each of the eleven names the faults again, as in qemu-img."""
    table = image.get(image.l1 + 8) & OFFSET
    for index in (3, 60):
        image.put(table + 8 * index, image.get(table + 8 * index) | 1 << 40)


def shared_and_lost(image):
    """What the snapshots after the fifth refer to."""
    for l1 in list(snapshots_of(image))[5:]:
        image.put(l1, 0)


@pytest.mark.parametrize("damage", [shared_and_low, shared_and_high, shared_and_faulty, shared_and_lost])
def test_damage_in_shared_tables(tmp_path, damage):
    image = shared_table(tmp_path / "a.qcow2")
    assert_same_check(image.path)
    damage(image)
    image.write()
    assert ours(image.path)[0] in (2, 3)
    assert_same_check(image.path)
    if damage != shared_and_faulty:
        assert ours(image.path, "-r", "all")[0] == 0
        assert_same_check(image.path)


def errors_found(result):
    found = re.search(r"(\d+) errors were found", result.out)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("faults", [0, 1, 2])
def test_a_shared_table_that_one_snapshot_names_twice(tmp_path, faults):
    """Once more than there are L1 tables by then is a fault; before that, every entry counts, and so do the faults, told once."""
    image = shared_table(tmp_path / "a.qcow2")
    last, table = list(snapshots_of(image))[-1], image.get(image.l1) & OFFSET
    for index in (3, 60)[:faults]:
        image.put(table + 8 * index, image.get(table + 8 * index) | 1 << 59)  # a reserved bit
    image.write()
    before = imgtk("check", image.path, code=2 if faults else 0)
    image.put(last + 8, image.get(last))
    after = imgtk("check", image.write(), code=2)
    assert before.err.count("reserved bits") == after.err.count("reserved bits") == faults
    assert errors_found(before) == 6 * faults  # the active state, and the snapshots since the change
    assert errors_found(after) == 7 * faults + after.err.count("ERROR ") - faults
    assert f"ERROR cluster {table // 512} refcount=6 reference=7" in after.err
    assert f"ERROR cluster {image.cluster(0)} refcount=6 reference=7" in after.err


def damage_in_many_tables(path):
    """An image of many small tables, of which some have every kind of fault."""
    make_image(path, 8 * MIB, options="cluster_size=512", writes=["write -P 1 0 6M"])
    qemu_img("snapshot", "-c", "s", path)
    qemu_io(path, "write -P 2 1M 100k", "write -P 3 5M 100k", fmt="qcow2")
    image = Image(path)
    faults = [1 << 40, 1 << 57, 512 + 1, COMPRESSED | COPIED | 1 << 45, 0]
    for index in range(0, image.l1_size, 3):
        table = image.get(image.l1 + 8 * index) & OFFSET
        for at in range(index % 7, 64, 7) if table else ():
            image.put(table + 8 * at, image.get(table + 8 * at) ^ faults[(index + at) % len(faults)])
    for index, entry in ((5, 1 << 50), (8, 1), (11, image.get(image.l1 + 8 * 12)), (14, 0x123)):
        image.put(image.l1 + 8 * index, entry)
    return image.write()


def with_workers(folder, count):
    (folder / "imgtk.yaml").write_text(f"workers: {count}\n")
    return environment(IMGTK_CONFIG=folder / "imgtk.yaml")


@pytest.mark.threads
def test_any_number_of_workers_finds_the_same(tmp_path):
    path = damage_in_many_tables(tmp_path / "a.qcow2")
    results = []
    for workers in (1, 2, 7):
        result = imgtk("check", path, code=2, env=with_workers(tmp_path, workers))
        results.append((result.out, result.err))
    assert results[1:] == results[:1] * 2
    assert len(results[0][1].splitlines()) > 500


@pytest.mark.unsanitized
def test_memory_of_a_large_disk(tmp_path):
    """Half a byte for each of the clusters: here there are four million, of a disk of 256 GiB."""
    env = with_workers(tmp_path, 2)
    imgtk("create", "-q", "-f", "qcow2", tmp_path / "small", MIB)
    imgtk("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", tmp_path / "large", TIB // 4)
    small, large = (peak_memory("check", tmp_path / name, env=env) for name in ("small", "large"))
    assert large < small + 4 * MIB


# ---- Tables outside the file -------------------------------------------------------------------

def l1_behind_the_end(image):
    image.put(40, 1 << 30)


def l1_cut_off(image):
    image.put(36, 1 << 16, ">I")
    image.put(40, len(image.data) - image.cluster_size)


def l1_is_the_header(image):
    image.put(40, 0)


def snapshots_behind_the_end(image):
    image.put(60, 1, ">I")
    image.put(64, 1 << 30)


def snapshots_cut_off(image):
    image.put(60, 2000, ">I")
    image.put(64, len(image.data))
    image.data += bytes(image.cluster_size)


OUTSIDE = [l1_behind_the_end, l1_cut_off, l1_is_the_header, snapshots_behind_the_end, snapshots_cut_off]


@pytest.mark.parametrize("damage", OUTSIDE)
def test_tables_outside_the_file(image, damage):
    """Found as corruptions, as qemu-img does; a repair does not make it worse, and nothing else opens such an image."""
    damage(image)
    image.write()
    code, found = ours(image.path)
    assert code == 2 and found["corruptions"] > 0
    assert qemu_img("check", image.path, code=None).code == 2
    code, found = ours(image.path, "-r", "all")
    assert code == 2 and "leaks-fixed" not in found
    assert image.path.read_bytes()[36:72] == image.data[36:72]
    imgtk("convert", "-O", "raw", image.path, image.path.with_suffix(".raw"), code=1)


def test_repair_of_leaks_leaves_errors(image):
    everything(image)
    image.write()
    code, found = ours(image.path, "-r", "leaks")
    assert code == 2 and found["leaks-fixed"] > 0 and "corruptions-fixed" not in found and "leaks" not in found


@pytest.mark.parametrize("order", range(7))
def test_repair_of_every_width(tmp_path, order):
    path = make_image(tmp_path / "a.qcow2", 2 * MIB, options=f"refcount_bits={1 << order},cluster_size=4k",
                      writes=["write -P 1 0 64k", "write -P 3 1M 64k"])
    image = Image(path)
    image.data[image.block:image.block + 8] = bytes(8)
    image.write()
    assert ours(path)[0] == 2
    assert ours(path, "-r", "all")[0] == 0
    assert theirs(path)[0] == 0


def test_damage_that_hides_references_keeps_counts(image):
    """A table that cannot be read may refer to any cluster: nothing is taken for leaked."""
    image.put(image.l1, image.get(image.l1) + 512)
    before = bytes(image.data)
    image.write()
    code, found = ours(image.path, "-r", "all")
    assert code == 2 and "leaks-fixed" not in found
    image.data = bytearray(image.path.read_bytes())
    assert [image.refcount(i) for i in range(40)] == [struct.unpack_from(">H", before, image.block + 2 * i)[0] for i in range(40)]


def test_check_changes_nothing(image):
    everything(image)
    image.write()
    before = image.path.read_bytes()
    ours(image.path)
    assert image.path.read_bytes() == before


def test_tables_named_many_times(tmp_path):
    """An L1 table whose entries all name one L2 table costs no more than one table's walk."""
    path = make_image(tmp_path / "a.qcow2", 64 * MIB, options="cluster_size=512", writes=["write 0 32k"])
    image = Image(path)
    for index in range(image.l1_size):
        image.put(image.l1 + 8 * index, image.get(image.l1))
    image.write()
    code, found = ours(path)
    assert code == 2 and found["corruptions"] >= image.l1_size - 1


@pytest.mark.parametrize("part", range(4))
def test_random_damage(image, tmp_path, part):
    """Any flipped bits in metadata: an answer, no crash; and a repair after which qemu-img agrees, or an honest no."""
    whole = bytes(image.data)
    rng = random.Random(7)
    places = ([rng.randrange(8, 112) for _ in range(30)] + [image.l1 + rng.randrange(8) for _ in range(20)] +
              [image.l2 + rng.randrange(40 * 8) for _ in range(60)] + [image.block + rng.randrange(100) for _ in range(40)] +
              [image.refcounts + rng.randrange(16) for _ in range(30)])
    flips = [(place, 1 << rng.randrange(8)) for place in places]
    for place, bit in flips[part::4]:
        image.data[:] = whole
        image.data[place] ^= bit
        image.write()
        for options in ((), ("-r", "all")):
            result = imgtk("check", *options, image.path, code=None, memory=MEMORY, timeout=60)
            assert result.code in (0, 1, 2, 3), result
        if result.code == 0:
            assert theirs(image.path)[0] == 0, place

"""The attacks that broke other image tools, by class. docs/security.md has the table, and names the tests elsewhere.

Each must end with exit code 1 and one line that tells the reason, in bounded memory and time, with the image as it was,
nothing left behind, and nothing opened that was not allowed: a canary file's content is nowhere, and strace has seen
every file that was opened.
"""
import os
import re
import struct

import pytest
from build_vhd import build as build_vhd
from imgtk_test import (GIB, IMGTK, KIB, MIB, SANITIZE, TIB, digest, execute, imgtk, imgtk_fails, make_image, make_raw,
                        peak_memory, qemu_img, tool)
from vmdk_build import write_descriptor

CANARY = b"CANARY" * 700
MEMORY = 200 * MIB  # of address space
BOTH = pytest.mark.parametrize("trust", [[], ["--untrusted"]], ids=["default", "untrusted"])


@pytest.fixture
def place(tmp_path):
    """images/ is the folder of uploads; the canary lies beside it."""
    (tmp_path / "images").mkdir()
    (tmp_path / "canary").write_bytes(CANARY)
    (tmp_path / "images/link").symlink_to("../canary")
    return tmp_path


def run_traced(place, *words, code):
    """Runs imgtk; the canary was not opened, and its content not printed."""
    log = place / "strace.log"
    # A sanitizer's leak check does not work under strace; these builds are not about what is opened.
    watch = [] if SANITIZE else [tool("strace"), "-f", "-qq", "-e", "trace=open,openat,openat2,execve,connect", "-o", log]
    result = execute([*watch, IMGTK, *words], code=code, timeout=20)
    assert "CANARY" not in result.out + result.err
    if watch:
        calls = [line for line in log.read_text().splitlines() if not re.search(r"= -1 E", line)]
        assert not [line for line in calls if 'canary"' in line and "execve" not in line], calls
        assert len([line for line in calls if "execve" in line]) == 1 and not [c for c in calls if "connect" in c], calls
    return result


def refused(place, image, match, *words):
    """A conversion that must fail; info, which follows no reference, and the image stays as it is."""
    before, out = digest(image), place / "images/out"
    result = run_traced(place, "convert", *words, "-O", "raw", image, out, code=1)
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("imgtk: ") and re.search(match, lines[0]), result
    assert digest(image) == before and not out.exists()
    assert not [path for path in (place / "images").iterdir() if path.name.startswith((".out", "out"))]


# ---- What an image names --------------------------------------------------------------
# CVE-2011-3147, CVE-2015-1851, CVE-2015-5163, CVE-2026-27211: backing files; CVE-2024-32498, CVE-2024-4467: data files;
# CVE-2022-47951: extents

NAMES = ["/canary", "../canary", "link", "/dev/null", "/proc/self/fd/0", "file:/canary", "fd:0", "nbd://127.0.0.1:9/", "nbd:unix:/canary",
         "http://127.0.0.1:9/canary", "ssh://127.0.0.1/canary", "[ touch /canary ]",
         'json:{"driver":"raw","file":{"driver":"file","filename":"/canary"}}']


def spelled(place, name):
    return name.replace("/canary", str(place / "canary")) if "127" not in name and not name.startswith("..") else name


@pytest.mark.parametrize("name, trust", [(name, []) for name in NAMES] + [(name, ["--untrusted"]) for name in NAMES[:3]])
def test_a_backing_file(place, name, trust):
    image = make_image(place / "images/a.qcow2", MIB)
    data = bytearray(image.read_bytes())
    text = spelled(place, name).encode()
    struct.pack_into(">QI", data, 8, 0x200, len(text))
    data[0x200:0x200 + len(text)] = text
    image.write_bytes(data)
    refused(place, image, "refers to '.*'|Could not open", *trust, "--backing-format=raw")
    assert run_traced(place, "info", *trust, image, code=0)


@BOTH
@pytest.mark.parametrize("name", ["/canary", "../canary", "link",
                                  'json:{"driver":"raw","file":{"driver":"file","filename":"/canary"}}'])
def test_a_data_file(place, name, trust):
    image = make_image(place / "images/a.qcow2", MIB, options=f"data_file={place}/images/d,data_file_raw=on")
    data, text = bytearray(image.read_bytes()), spelled(place, name).encode()
    end, = struct.unpack_from(">I", data, 100)
    extension = struct.pack(">II", 0x44415441, len(text)) + text.ljust((len(text) + 7) // 8 * 8, b"\0")
    data[end:0x1000] = extension.ljust(0x1000 - end, b"\0")
    image.write_bytes(data)
    refused(place, image, "refers to '", "-f", "qcow2", *trust)
    run_traced(place, "info", *trust, image, code=0)


@BOTH
@pytest.mark.parametrize("name", ["/canary", "../canary", "link", "nbd://127.0.0.1:9/"])
def test_an_extent(place, name, trust):
    line = f'RW 8 FLAT "{spelled(place, name)}" 0'
    image = write_descriptor(place / "images/a.vmdk", [line], create_type="monolithicFlat")
    refused(place, image, "refers to '", "-f", "vmdk", *trust)


@BOTH
def test_a_parent(place, trust):
    image = build_vhd(place / "images/a.vhd", MIB, kind=4, parent_name=str(place / "canary"),
                      parents=[(b"W2ku", str(place / "canary")), (b"W2ru", "..\\canary")])
    refused(place, image or place / "images/a.vhd", "refers to '", "-f", "vpc", *trust)


def test_untrusted_images_refer_to_nothing_at_all(place):
    """What the default allows: a backing file, a data file and an extent in the image's own folder."""
    make_raw(place / "images/base", MIB)
    cases = [make_image(place / "images/a.qcow2", MIB, backing="base", backing_fmt="raw"),
             make_image(place / "images/b.qcow2", MIB, options=f"data_file={place}/images/base.data"),
             write_descriptor(place / "images/c.vmdk", ['RW 2048 FLAT "base" 0'], create_type="monolithicFlat")]
    for image in cases:
        imgtk("convert", "-O", "raw", image, place / "images/out")
        (place / "images/out").unlink()
        refused(place, image, "which --untrusted forbids", "--untrusted")
    imgtk_fails("info", "--untrusted", "--backing-chain", cases[0], match="which --untrusted forbids")
    for words in (["--references=any"], ["--allow-dir=/"]):
        imgtk("info", "--untrusted", *words, cases[0], code=1)


def test_a_module_is_never_named_by_an_image(place):
    """A library that lies beside the image, under the name that its overlay records as a format."""
    source = place / "evil.c"
    source.write_text(f'#include <fcntl.h>\n__attribute__((constructor)) void f(void) {{ creat("{place}/loaded", 0600); }}\n')
    execute([tool("cc"), "-shared", "-fPIC", "-o", place / "images/evil.so", source])
    make_raw(place / "images/base", MIB)
    image = make_image(place / "images/a.qcow2", MIB, backing="base", backing_fmt="raw")
    extension = struct.pack(">II", 0xE2792ACA, 3) + b"raw"
    for name in (b"evil", b"./evil", b"../images/evil", str(place / "images/evil").encode()):
        data = image.read_bytes()
        at = data.index(extension)
        own = data[at + 16:data.index(b"base", at)]
        room = struct.pack(">II", 0xE2792ACA, len(name)) + name.ljust((len(name) + 7) // 8 * 8, b"\0")
        changed = bytearray(data)
        changed[at:at + len(room) + 8] = room + bytes(8)
        text = b"base"
        struct.pack_into(">QI", changed, 8, 0x1000, len(text))
        changed[0x1000:0x1004] = text
        image_changed = place / "images/changed.qcow2"
        image_changed.write_bytes(changed)
        refused(place, image_changed, "Unknown file format")
        assert not (place / "loaded").exists(), own


# ---- Formats that are not what they seem ------------------------------------------------
# CVE-2024-40767, CVE-2024-44082, CVE-2026-24708

def test_a_qcow2_that_is_said_to_be_raw(place):
    """Without --untrusted it is what the user says: bytes. Its backing file is not looked for either way."""
    make_image(place / "images/a.qcow2", MIB)
    image = make_image(place / "images/b.qcow2", None, backing=place / "canary", backing_fmt="raw")
    refused(place, image, "said to be raw, but its content is qcow2", "-f", "raw", "--untrusted")
    run_traced(place, "convert", "-f", "raw", "-O", "raw", image, place / "images/copy", code=0)
    assert (place / "images/copy").read_bytes()[:len(image.read_bytes())] == image.read_bytes()


@pytest.mark.parametrize("said, fmt", [("qcow2", "raw"), ("raw", "vmdk"), ("raw", "vpc"), ("vhdx", "vdi")])
def test_the_format_that_is_named_is_the_one_that_is_there(place, said, fmt):
    image = place / "images/a"
    qemu_img("create", "-q", "-f", fmt, image, "2M")
    refused(place, image, f"said to be {said}, but its content is {fmt}", "-f", said, "--untrusted")
    imgtk("convert", "-f", fmt, "--untrusted", "-O", "raw", image, place / "images/out")


@pytest.mark.parametrize("said", [[], ["-f", "qcow2"], ["-f", "raw"], ["-f", "vpc"]], ids=str)
def test_a_polyglot_is_none_of_its_formats(place, said):
    """The header of a qcow2 image and the footer of a fixed VHD."""
    inner, image = place / "images/inner", place / "images/a.vhd"
    make_image(inner, MIB)
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", inner, image)
    inner.unlink()
    refused(place, image, "ambiguous format: its content fits", *said, "--untrusted")
    if not said:
        refused(place, image, "ambiguous format: its content fits")


def test_what_is_probed_as_raw_is_never_changed(place):
    """A guest can write any header into its own disk: a resize that probes would then be of the inner image."""
    raw = make_raw(place / "images/disk", MIB, [(0, b"nothing known")])
    for words in (["resize", raw, "2M"], ["resize", "--untrusted", raw, "2M"], ["snapshot", "-c", "s", raw]):
        before = digest(raw)
        imgtk_fails(*words, match="raw is not guessed|does not|not support|no known format")
        assert digest(raw) == before
    inner = make_image(place / "images/inner", MIB)
    before = digest(inner)
    imgtk_fails("resize", "--untrusted", "-f", "raw", inner, "2M", match="said to be raw, but its content is qcow2")
    assert digest(inner) == before


# ---- Exhaustion --------------------------------------------------------------------------
# GHSA-2w87-5qcj-j6gx, CVE-2026-44919; CVE-2014-0143 to CVE-2014-0148

def patched(image, *changes):
    data = bytearray(image.read_bytes())
    for at, form, value in changes:
        struct.pack_into(form, data, at, value)
    image.write_bytes(data)
    return image


def bomb(path, size, cluster_bits=16):
    """A qcow2 disk of which every cluster is one and the same compressed one: `size` bytes in a few clusters."""
    cluster = 1 << cluster_bits
    qemu_img("convert", "-c", "-O", "qcow2", "-o", f"cluster_size={cluster}",
             make_raw(path.with_suffix(".one"), cluster, [(0, b"bomb" * (cluster // 4))]), path)
    path.with_suffix(".one").unlink()
    data = bytearray(path.read_bytes())
    l1, = struct.unpack_from(">Q", data, 40)
    l2_entry, = struct.unpack_from(">Q", data, l1)
    l2 = l2_entry & 0x00FFFFFFFFFFFE00
    entry, = struct.unpack_from(">Q", data, l2)
    entries = cluster // 8
    count = -(-size // (cluster * entries))
    data[l2:l2 + cluster] = struct.pack(">Q", entry) * entries
    end = -(-len(data) // cluster) * cluster
    data = data.ljust(end, b"\0") + (struct.pack(">Q", l2 & ~(1 << 63)) * count).ljust(-(-count * 8 // cluster) * cluster, b"\0")
    struct.pack_into(">Q", data, 24, size)
    struct.pack_into(">IQ", data, 36, count, end)
    path.write_bytes(data)
    return path


@BOTH
@pytest.mark.parametrize("changes, match", [
    ([(36, ">I", 0xFFFFFFFF)], "L1 table of 4294967295 entries"),
    ([(20, ">I", 40)], r"cluster size 2\^40"),
    ([(24, ">Q", (1 << 64) - 1)], "virtual size"),
    ([(24, ">Q", (1 << 63) - 512)], "virtual size|L1 table"),
    ([(56, ">I", 0xFFFFFFFF)], "refcount table"),
    ([(60, ">I", 0xFFFFFFFF)], "snapshots"),
    ([(100, ">I", 0xFFFFFFF8)], "header length"),
    ([(72, ">Q", 1 << 50)], r"\(bit 50\)"),
], ids=["L1", "cluster_bits", "size", "size2", "refcounts", "snapshots", "header", "feature"])
def test_a_header_that_claims_too_much(place, changes, match, trust):
    image = patched(make_image(place / "images/a.qcow2", MIB), *changes)
    imgtk_fails("convert", *trust, "-f", "qcow2", "-O", "raw", image, place / "out", match=match, memory=MEMORY, timeout=20)
    assert not (place / "out").exists()


@pytest.mark.unsanitized
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_a_bomb_ends_at_the_budget(place, target):
    image = bomb(place / "images/a.qcow2", TIB)
    assert image.stat().st_size < MIB
    imgtk_fails("convert", "--max-output=32M", "-O", target, image, place / "out", timeout=20, memory=MEMORY,
                match="more than 33554432 bytes would be written, the limit of --max-output")
    assert not (place / "out").exists()
    peak = peak_memory("convert", "--untrusted", "--max-output=32M", "-O", target, image, place / "out", code=1, timeout=20)
    assert peak < 100 * MIB


@pytest.mark.unsanitized
def test_a_bomb_ends_at_the_time(place):
    image = bomb(place / "images/a.qcow2", TIB, cluster_bits=12)
    line = "imgtk: not ready after 1 seconds, the limit of --max-time"
    for words in (["convert", "-O", "raw", image, "null:"], ["compare", image, bomb(place / "images/b.qcow2", TIB)]):
        result = imgtk(*words, "--untrusted", "--max-time=1", code=None, timeout=20)
        assert result.err.splitlines() == [line], result
        assert result.code in ((2, 4) if words[0] == "compare" else (1,)), result  # never 1, "different"


@pytest.mark.unsanitized
def test_what_cannot_stop_ends_when_the_time_is_up(place):
    """A check looks at no flag, so the alarm ends it: no second one is set to wait for it."""
    image = shared_tables(place / "images/a.qcow2", 2 * MIB, 30000, 1)
    trace = [tool("strace"), "-f", "-qq", "-e", "trace=?alarm,setitimer", "-e", "signal=none", "-o", place / "log"]
    result = execute([*trace, IMGTK, "check", "--max-time=1", image], code=1, timeout=60)
    assert result.err == "imgtk: not ready after 1 seconds, the limit of --max-time\n"
    assert len(re.findall(r"(alarm|setitimer)\(", (place / "log").read_text())) == 1


@pytest.mark.unsanitized
def test_huge_disks_of_nothing_take_nothing(place):
    for fmt, size in (("qcow2", "64T"), ("vhdx", "63T"), ("vmdk", "2T")):
        image = place / f"images/a.{fmt}"
        qemu_img("create", "-q", "-f", fmt, image, size)
        assert peak_memory("info", "--untrusted", image, timeout=20) < 64 * MIB
        imgtk_fails("convert", "--untrusted", "-O", "raw", image, place / "out", timeout=20, memory=None,
                    match="bytes would be written, the limit of --max-output")
        assert not (place / "out").exists()
        image.unlink()


@pytest.mark.unsanitized
def test_memory_has_a_budget(place):
    """The limit is of the process, so that what nobody has thought of keeps to it too."""
    image = make_image(place / "images/a.qcow2", 8 * MIB, writes=["write -P 1 0 8M"])
    imgtk_fails("convert", "--max-memory=1M", "-m", "1", "-O", "qcow2", "-c", image, place / "out", match="out of memory")
    assert not (place / "out").exists()
    imgtk("convert", "--max-memory=64M", "-O", "qcow2", "-c", image, place / "out")


def test_tables_have_a_budget(place):
    image = make_image(place / "images/a.qcow2", 64 * GIB, options="cluster_size=4k")
    imgtk("info", "--max-metadata=2M", image)
    imgtk_fails("info", "--max-metadata=128k", image, match="more than 131072 bytes of tables .*--max-metadata")


def many_tables(path, kind):
    """A small file that says so often where a large table is that going over it each time would take hours."""
    cluster = 1 << 21 if kind == "L2" else 1 << 16
    place, large, names = 1 << 23, (1 << 26, 1 << 22), [b"%05d" % i for i in range(65535)]
    places = dict.fromkeys(names, large)
    if kind == "L2":  # that many L1 tables might name one L2 table, but all of them but one are empty
        places = dict.fromkeys(names, (0, 0)) | {names[-1]: (7 * cluster, len(names))}
    if kind == "bitmaps":
        table = b"".join(struct.pack(">QIIBBHI8s", *places[name], 0, 1, 16, 5, 0, name) for name in names)
    else:
        table = b"".join(struct.pack(">QIHHIIQIIQQ8s", *places[name], 5, 1, 0, 0, 0, 0, 16, 0, MIB, name + b"n")
                         for name in names)
    snapshots, bitmaps = (0, 1) if kind == "bitmaps" else (len(names), 0)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, cluster.bit_length() - 1, MIB, 0, 1, 2 * cluster,
                         cluster, 1, snapshots, place if snapshots else 0, 0, 0, bitmaps, 4, 104)
    extension = struct.pack(">IIIIQQ", 0x23852875, 24, len(names), 0, len(table), place) if bitmaps else b""
    parts = [(0, header + extension), (place, table)]
    if kind == "L2":
        parts += [(7 * cluster, struct.pack(">Q", 8 * cluster) * len(names)),
                  (8 * cluster, struct.pack(">Q", 9 * cluster) * (cluster // 8))]
    with open(path, "wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(1 << 27)
    return path


@pytest.mark.parametrize("kind, match", [
    ("L1", "lies where something else is"),
    ("L2", "is named twice by one L1 table"),
    ("bitmaps", "lies where something else is"),
], ids=["L1", "L2", "bitmaps"])
def test_no_table_is_gone_over_again_and_again(place, kind, match):
    image = many_tables(place / "images/a.qcow2", kind)
    for words in (["--untrusted"], ["-r", "all"]):
        result = imgtk("check", *words, image, code=2, timeout=20)
        assert re.search(match, result.err), result
    imgtk_fails("snapshot", "-c", "name", image, match="errors: repair it", timeout=20)


def shared_tables(path, cluster, tables, snapshots, last=0):
    """
    An image, all of whose L2 tables are named by the active L1 table and by those of all snapshots. They are empty, but
    for the last entry of each.
    """
    l1, l2, entries = 4, 5 + snapshots, 5 + snapshots + tables  # clusters; one L1 table in each
    size = tables * (cluster // 8) * cluster
    names = b"".join(struct.pack(">QIHHIIQIIQQ8s", (l1 + 1 + i) * cluster, tables, 5, 1, 0, 0, 0, 0, 16, 0, size,
                                 b"%05dn" % i) for i in range(snapshots))
    refcounts = [1] * l2 + [snapshots + 1] * tables + [1] * (1 + (len(names) - 1) // cluster)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, cluster.bit_length() - 1, size, 0, tables,
                         l1 * cluster, cluster, 1, snapshots, entries * cluster, 0, 0, 0, 4, 104)
    table = b"".join(struct.pack(">Q", (l2 + i) * cluster) for i in range(tables))
    refcounts[3] = 0  # not used
    parts = [(0, header), (1, struct.pack(">Q", 2 * cluster)), (2, struct.pack(f">{len(refcounts)}H", *refcounts)),
             (entries, names)]
    with open(path, "wb") as file:
        for at, data in parts + [(l1 + i, table) for i in range(snapshots + 1)]:
            file.seek(at * cluster)
            file.write(data)
        for at in range(tables if last else 0):
            file.seek((l2 + at + 1) * cluster - 8)
            file.write(struct.pack(">Q", last))
        file.truncate(len(refcounts) * cluster)
    return path


def test_tables_that_snapshots_share_are_not_gone_over_for_each(place):
    """200 tables of 2 MiB, which is soon done; a thousand times as much is not."""
    image = shared_tables(place / "images/a.qcow2", 2 * MIB, 200, 1000)
    assert "No errors" in imgtk("check", "--untrusted", image, timeout=20).out
    imgtk("snapshot", "-d", "00007", image, timeout=20)
    assert "No errors" in imgtk("check", "-r", "all", image, timeout=20).out


def test_faults_of_tables_that_snapshots_share_are_told_once(place):
    image = shared_tables(place / "images/a.qcow2", 2 * MIB, 200, 1000, last=512)
    result = imgtk("check", "--untrusted", image, code=2, timeout=20)
    assert f"{200 * 1001} errors were found" in result.out, result
    assert len(result.err.splitlines()) == 200 and result.err.count("is not aligned") == 200
    small = shared_tables(place / "images/b.qcow2", 64 * KIB, 3, 2, last=512)
    assert "9 errors were found" in imgtk("check", small, code=2).out


@pytest.mark.unsanitized
@pytest.mark.parametrize("words, code", [
    (["check", "--untrusted"], 3),
    (["check", "-r", "all"], 0),
    (["snapshot", "-c", "name"], 0),
], ids=["check", "repair", "snapshot"])
def test_a_billion_clusters_of_nothing_take_nothing(place, words, code):
    """512 GiB of holes behind four clusters of 512 bytes, the last of which has a refcount that is too high."""
    image, cluster = place / "images/a.qcow2", 512
    image.write_bytes(b"".join(part.ljust(cluster, b"\0") for part in (
        struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 9, 32 * KIB, 0, 1, 2 * cluster, cluster, 1, 0, 0, 0, 0,
                    0, 4, 104),
        struct.pack(">Q", 3 * cluster), b"", struct.pack(">4H", 1, 1, 1, 2))))
    os.truncate(image, 512 * GIB - MIB)
    assert peak_memory(*words, image, code=code, timeout=60) < 64 * MIB


@BOTH
def test_an_image_that_backs_itself(place, trust):
    image = make_image(place / "images/a.qcow2", MIB)
    qemu_img("rebase", "-u", "-b", "a.qcow2", "-F", "qcow2", image)
    refused(place, image, "loops|--untrusted forbids", *trust)


@pytest.mark.parametrize("words, match", [
    (["--max-output=4M"], "has more than 4194304 bytes, the limit of --max-output"),
    (["--max-time=1"], "not ready after 1 seconds"),
], ids=["output", "time"])
def test_a_source_that_never_ends(place, words, match):
    command = ["sh", "-c", 'yes | "$0" "$@"', IMGTK, "convert", *words, "-f", "raw", "-O", "raw", "-", place / "out"]
    result = execute(command, code=1, timeout=20)
    assert re.search(match, result.err) and len(result.err.splitlines()) == 1, result
    assert not (place / "out").exists()


def test_a_source_that_says_nothing(place):
    """Blocked in a read that no flag ends: the time is up all the same."""
    reading, writing = os.pipe()
    try:
        result = execute(["sh", "-c", f'"$0" convert --max-time=1 -f raw -O raw - "$1" < /proc/{os.getpid()}/fd/{reading}',
                          IMGTK, place / "out"], code=1, timeout=20)
    finally:
        os.close(reading)
        os.close(writing)
    assert re.search("not ready after 1 seconds", result.err), result
    assert not (place / "out").exists()


@BOTH
def test_a_device_that_never_ends(place, trust):
    imgtk_fails("convert", *trust, "-f", "raw", "-O", "raw", "/dev/zero", place / "out", match="need not end", timeout=20)


def test_addresses_need_the_network(place):
    for name in ("nbd://127.0.0.1:9/", "[ true ]"):
        words = ["[", "true", "]"] if name[0] == "[" else [name]
        imgtk_fails("convert", "--untrusted", "-O", "raw", "--", *words, place / "out", match="--untrusted has no network")

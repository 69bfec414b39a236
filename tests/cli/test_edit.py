"""resize, rebase, commit, snapshot and bitmap: what they say, and what they refuse."""
import json
import shutil

import pytest
from imgtk_test import KIB, MIB, IMGTK, digest, environment, execute, imgtk, imgtk_fails, make_raw


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.qcow2"
    imgtk("create", "-q", "-f", "qcow2", path, "1M")
    return path


def make_overlay(folder, fmt="qcow2", recorded="qcow2"):
    """top over base, with 64 KiB of data at 64 KiB in top."""
    imgtk("create", "-q", "-f", fmt, folder / "base", "1M")
    raw = make_raw(folder / "data.raw", MIB, [(64 * KIB, b"t" * 64 * KIB)])
    imgtk("convert", "-O", "qcow2", "-B", folder / "base", "-F", recorded, raw, folder / "top")
    return folder / "top", folder / "base"


# ---- resize ---------------------------------------------------------------------------

def size_of(path, *words):
    return int(imgtk("info", *words, path).out.split("(")[1].split(" ")[0])


@pytest.mark.parametrize("size, expected", [
    ("2M", 2 * MIB), ("+1M", 2 * MIB), ("+0", MIB), ("1048576", MIB), ("1.5M", 3 * MIB // 2), ("+1k", MIB + KIB),
])
def test_sizes(image, size, expected):
    assert imgtk("resize", image, size).out == "Image resized.\n"
    assert size_of(image) == expected
    assert imgtk("resize", "-q", image, "+0").out == ""


def test_the_size_may_stand_anywhere_behind_the_file(image):
    for words, size in (((image, "2M", "-q"), 2), (("-q", image, "+1M", "--preallocation=off"), 3),
                        (("--shrink", image, "-1M"), 2), (("-q", "--shrink", "--", image, "-512k"), 1.5),
                        ((image, "-512k", "--shrink", "-f", "qcow2"), 1)):
        imgtk("resize", *words)
        assert size_of(image) == size * MIB
    for words in ((image, "-1M", "2M"), ("-1M",), (image,), (image, "2M", "3M")):
        assert "Expecting image file name and size" in imgtk("resize", *words, code=1).err


def test_shrinking_must_be_asked_for(image):
    before = digest(image)
    for size in ("-512k", "64k"):
        result = imgtk("resize", image, size, code=1)
        assert result.err == (
            "imgtk: Use the --shrink option to perform a shrink operation.\n"
            "imgtk: warning: Shrinking an image will delete all data beyond the shrunken image's end. "
            "Before performing such an operation, make sure there is no important data there.\n")
    assert digest(image) == before
    imgtk("resize", "--shrink", image, "-512k")
    assert size_of(image) == 512 * KIB


@pytest.mark.parametrize("size, message", [
    ("-9G", "New image size must be positive"), ("-1M", "New image size must be positive"), ("0", "must be positive"),
    ("1M+", "1M[+]"), ("2000001", "must be a multiple of 512"), ("7E", "limit of 33554432 bytes"),
])
def test_sizes_that_cannot_be(image, size, message):
    before = digest(image)
    imgtk_fails("resize", "--shrink", image, size, match=message)
    assert digest(image) == before


def test_usage(image):
    for words in ((image,), (), (image, "x", "1M"), ("--preallocation=some", image, "2M")):
        assert imgtk("resize", *words, code=1).err.startswith("imgtk: ")
    assert "Usage" in imgtk("resize", "--help").out
    for words in (("-l", "-c", "x", image), ("-a", "x", "-d", "x", image), ("-c", "x"), ()):
        assert "imgtk: " in imgtk("snapshot", *words, code=1).err


def test_raw_is_not_guessed(tmp_path):
    raw = make_raw(tmp_path / "a.raw", MIB)
    imgtk_fails("resize", raw, "2M", match="name it with -f raw")
    assert raw.stat().st_size == MIB
    imgtk("resize", "-f", "raw", raw, "2M")
    assert raw.stat().st_size == 2 * MIB


@pytest.mark.parametrize("fmt", ["vdi", "vhdx", "vpc", "vmdk"])
def test_formats_that_cannot_be_changed_are_named(tmp_path, fmt):
    path = tmp_path / "image"
    imgtk("create", "-q", "-f", fmt, path, "1M")
    before = digest(path)
    for words in (("resize", path, "2M"), ("snapshot", "-c", "s", path),
                  ("rebase", "-u", "-b", "x", "-F", "raw", path)):
        imgtk_fails(*words, match=f"format {fmt}: this format cannot be changed in place")
    assert imgtk("snapshot", "-l", path).out == ""
    assert imgtk("bitmap", path).out == ""
    assert digest(path) == before
    assert not {row["name"]: row for row in json.loads(imgtk("formats", "--output=json").out)}[fmt]["edit"]


def test_raw_has_no_snapshots_and_no_backing_file(tmp_path):
    raw = make_raw(tmp_path / "a.raw", MIB)
    imgtk_fails("snapshot", "-f", "raw", "-c", "s", raw, match="format raw: this format has no internal snapshots")
    imgtk_fails("rebase", "-u", "-f", "raw", "-b", "x", "-F", "raw", raw, match="format raw: the backing file of this")


# ---- snapshot ----------------------------------------------------------------------------

def test_snapshots_that_are_not_there(image):
    before = digest(image)
    imgtk_fails("snapshot", "-a", "x", image, match="Could not apply snapshot 'x': .*no snapshot")
    imgtk_fails("snapshot", "-d", "x", image, match="Could not delete snapshot 'x': .*no snapshot")
    imgtk_fails("snapshot", "-c", "x" * 256, image, match="256 bytes is above the limit of 255")
    assert digest(image) == before


def test_ids_come_before_names(image):
    imgtk("snapshot", "-c", "2", image)
    imgtk("snapshot", "-c", "other", image)
    imgtk("snapshot", "-d", "2", image)
    rows = imgtk("snapshot", "-l", image).out.splitlines()[2:]
    assert [row.split()[:2] for row in rows] == [["1", "2"]]
    imgtk("snapshot", "-c", "third", image)
    assert imgtk("snapshot", image).out.splitlines()[3].split()[:2] == ["2", "third"]


# ---- rebase and commit --------------------------------------------------------------------

def test_rebase_needs_a_format_and_a_file(tmp_path):
    top, base = make_overlay(tmp_path)
    before = digest(top)
    assert "Must specify backing file (-b) or use unsafe mode (-u)" in imgtk("rebase", top, code=1).err
    imgtk_fails("rebase", "-b", "x", top,
                match="Could not change the backing file to 'x': backing format must be specified")
    imgtk_fails("rebase", "-b", "x", "-F", "qcow2", top, match="Could not open new backing file 'x'")
    imgtk_fails("rebase", "-u", "-b", "x", "-F", "foo", top, match="Unknown file format 'foo'")
    imgtk_fails("rebase", "-u", "-b", "x" * 1100, "-F", "raw", top, match="1100 bytes is above the limit of 1023")
    assert digest(top) == before


def test_rebase_counts_from_the_folder_of_the_image(tmp_path):
    (tmp_path / "sub").mkdir()
    top, base = make_overlay(tmp_path / "sub")
    shutil.copy(base, tmp_path / "sub/other")
    imgtk("rebase", "-b", "other", "-F", "qcow2", "sub/top", cwd=tmp_path)
    assert "backing file: other" in imgtk("info", top).out


def test_commit_without_a_backing_file(image):
    imgtk_fails("commit", image, match="Image does not have a backing file")


def test_commit_says_so(tmp_path):
    top, base = make_overlay(tmp_path)
    assert imgtk("commit", top).out == "Image committed.\n"
    assert imgtk("commit", "-q", top).out == ""
    assert imgtk("commit", "-p", top).out.endswith("\nImage committed.\n")


def test_commit_into_a_format_that_cannot_be_changed(tmp_path):
    top, base = make_overlay(tmp_path, "vdi", "vdi")
    before = digest(top), digest(base)
    imgtk_fails("commit", top, match="format vdi: this format cannot be changed in place")
    assert (digest(top), digest(base)) == before


def test_commit_follows_the_reference_policy(tmp_path):
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    top, base = make_overlay(tmp_path / "in")
    shutil.move(base, tmp_path / "out/base")
    imgtk("rebase", "-u", "-b", "../out/base", "-F", "qcow2", top)
    before = digest(top), digest(tmp_path / "out/base")
    imgtk_fails("commit", top, match="outside")
    imgtk_fails("commit", "--references=none", top, match="--references=none")
    assert (digest(top), digest(tmp_path / "out/base")) == before
    imgtk("commit", "--allow-dir", tmp_path / "out", top)
    assert digest(tmp_path / "out/base") != before[1]


def test_commit_into_a_file_that_cannot_be_written(tmp_path):
    top, base = make_overlay(tmp_path)
    result = execute(["chattr", "+i", base], code=None)
    if result.code != 0:
        pytest.skip("no immutable files here")
    try:
        before = digest(top)
        imgtk_fails("commit", top, match="base")
        assert digest(top) == before
    finally:
        execute(["chattr", "-i", base])


def test_the_source_of_a_rebase_stays_as_it_is(tmp_path):
    top, base = make_overlay(tmp_path)
    before = digest(base)
    imgtk("rebase", "-b", "", top)
    assert digest(base) == before
    assert "backing" not in imgtk("info", top).out


def test_started_as_qemu_img(image, tmp_path):
    link = tmp_path / "qemu-img"
    link.symlink_to(IMGTK)
    assert execute([link, "resize", image, "+1M"], env=environment()).out == "Image resized.\n"
    assert execute([link, "commit", image], code=1).err == "qemu-img: Image does not have a backing file\n"


def test_long_options_of_qemu_img(tmp_path):
    top, base = make_overlay(tmp_path)
    before = digest(top)
    imgtk("commit", "--drop", "--rate", "1M", top)
    imgtk("commit", "--base", base, top)
    assert digest(top) == before
    imgtk("snapshot", "--create", "s", base)
    assert imgtk("snapshot", "--list", base).out.splitlines()[2].split()[1] == "s"
    imgtk("snapshot", "--apply", "s", base)
    imgtk("snapshot", "--delete", "s", base)
    assert imgtk("snapshot", base).out == ""
    imgtk("rebase", "--backing-unsafe", "--backing", "nx", "--backing-format", "raw", "--backing-cache", "none", top)
    assert "backing file: nx" in imgtk("info", top).out
    imgtk("check", "--cache", "none", top)
    imgtk("compare", "--cache", "none", base, base)
    assert "required size" in imgtk("measure", "--format", "qcow2", base).out


# ---- Progress -------------------------------------------------------------------------

def progress_of(folder, *words):
    out = execute([IMGTK, *words, "-q", "--progress=1", "--progress-format=jsonl"], cwd=folder).out
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("words, below, disk", [
    (("commit", "top"), b"b" * 8 * MIB, b"d" * MIB),                        # data, and behind them zeroes
    (("rebase", "-b", "", "top"), b"b" * MIB, b"b" * MIB + b"d" * 7 * MIB)  # data to be kept, and those of its own
], ids=["commit", "rebase"])
def test_progress_tells_of_nothing_that_is_only_being_read(tmp_path, words, below, disk):
    """What follows the data that are under way is passed over before they are in their place."""
    for name, content, backing in (("base", below, []), ("top", disk, ["-B", tmp_path / "base", "-F", "qcow2"])):
        raw = make_raw(tmp_path / "raw", 8 * MIB, [(0, content)])
        imgtk("convert", "-O", "qcow2", *backing, raw, tmp_path / name)
    rows = progress_of(tmp_path, *words)
    assert (rows[0]["done"], rows[0]["copied"]) in [(0, 0), (MIB, MIB)]
    assert (rows[-1]["done"], rows[-1]["copied"]) == (8 * MIB, MIB)

"""What a process can still do that works on images: the confinement of --untrusted, and that of every run."""
import os
import re
import sys

import pytest
from imgtk_test import (IMGTK, KIB, MIB, TESTS, assert_same_bytes, compressible, environment, execute, imgtk, imgtk_fails,
                        make_image, make_raw, tool)

pytestmark = pytest.mark.unsanitized  # their builds have no filter of system calls, and no limit of memory

TRAPPED = "imgtk: stopped at a system call that --untrusted does not allow: number "
DENIED = "escape: Permission denied"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("escape") / "escape.so"
    execute([tool("cc"), "-shared", "-fPIC", "-O1", "-pthread", "-o", path, TESTS / "faults/escape.c"])
    return path


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """The same for tests that change nothing."""
    return make_place(tmp_path_factory.mktemp("still"))


def make_place(tmp_path):
    """images/disk.qcow2 and its neighbour, out/ with a neighbour, and a secret elsewhere."""
    for name in ("images", "out", "secrets"):
        (tmp_path / name).mkdir()
    raw = make_raw(tmp_path / "disk.raw", MIB, [(64 * KIB, compressible(100 * KIB))])
    imgtk("convert", "-O", "qcow2", raw, tmp_path / "images/disk.qcow2")
    for name in ("images/neighbour", "out/neighbour", "secrets/secret"):
        (tmp_path / name).write_text("secret")
    return tmp_path


def attempt(library, place, what, path, *options, thread=False):
    """What came of it: the last line, and the exit code."""
    image = place / "images/disk.qcow2"
    env = environment(LD_PRELOAD=library, ESCAPE_IMAGE=image, ESCAPE=what, ESCAPE_PATH=place / path,
                      ESCAPE_THREAD="1" if thread else None)
    result = imgtk("convert", *options, "-O", "raw", image, place / "out/disk.raw", code=None, env=env)
    assert not (place / "out/disk.raw").exists(), result
    assert os.listdir(place / "out") == ["neighbour"], result
    return result.err.splitlines()[-1], result.code


@pytest.mark.parametrize("what, path", [
    ("read", "secrets/secret"), ("read", "images/neighbour"), ("read", "out/neighbour"), ("read", "/etc/passwd"),
    ("write", "secrets/new"), ("write", "images/neighbour"), ("write", "images/disk.qcow2"),
    ("unlink", "images/neighbour"), ("list", "images"), ("list", "/"),
])
def test_an_untrusted_image_reaches_no_other_file(library, still, what, path):
    assert attempt(library, still, what, path, "--untrusted=require") == (DENIED, 7)


def test_nor_does_it_from_another_thread(library, still):
    assert attempt(library, still, "read", "secrets/secret", "--untrusted=require", thread=True) == (DENIED, 7)


@pytest.mark.parametrize("what", ["socket", "fork", "exec", "signal", "code", "protect"])
def test_an_untrusted_image_reaches_no_network_and_no_program(library, still, what):
    line, code = attempt(library, still, what, "", "--untrusted=require")
    assert line.startswith(TRAPPED) and code == 1


@pytest.mark.parametrize("what, path, expected", [
    ("write", "secrets/secret", DENIED), ("write", "images/neighbour", DENIED), ("write", "images/disk.qcow2", DENIED),
    ("unlink", "images/neighbour", DENIED), ("read", "secrets/secret", "escape: done"),
    ("socket", "", "escape: done"), ("fork", "", "escape: done"),
])
def test_every_run_writes_to_its_destination_alone(library, still, what, path, expected):
    assert attempt(library, still, what, path) == (expected, 7)


def test_commands_that_only_read_write_nothing(library, still):
    image = still / "images/disk.qcow2"
    env = environment(LD_PRELOAD=library, ESCAPE_IMAGE=image, ESCAPE="write", ESCAPE_PATH=image)
    for words in (["info"], ["map"], ["check"], ["measure"], ["bitmap"], ["compare", image], ["snapshot", "-l"]):
        result = imgtk(*words, image, code=7, env=env)
        assert result.err.splitlines()[-1] == DENIED, words


def test_compare_keeps_its_exit_codes(library, still):
    image = still / "images/disk.qcow2"
    env = environment(LD_PRELOAD=library, ESCAPE_IMAGE=image, ESCAPE="socket")
    imgtk_fails("compare", "--untrusted", image, image, code=2, env=env, match="system call")


# ---- What must go on working ---------------------------------------------------------

def test_everything_works_untrusted(place):
    """Each format both ways, the pipes, the changes in place: with a filter that ends the process at a wrong step."""
    image, raw, out = place / "images/disk.qcow2", place / "disk.raw", place / "out"
    for fmt in ("qcow2", "vmdk", "vpc", "vhdx", "vdi"):
        imgtk("convert", "--untrusted=require", "-O", fmt, image, out / f"a.{fmt}")
        imgtk("convert", "--untrusted=require", "-f", fmt, "-O", "raw", out / f"a.{fmt}", out / "b.raw")
        imgtk("check", "--untrusted=require", out / f"a.{fmt}")
        imgtk("compare", "--untrusted=require", out / f"a.{fmt}", image)
    assert_same_bytes(out / "b.raw", raw)
    imgtk("convert", "--untrusted=require", "-c", "-O", "qcow2", image, out / "c.qcow2")
    imgtk("resize", "--untrusted=require", out / "c.qcow2", "+1M")
    imgtk("snapshot", "--untrusted=require", "-c", "s", out / "c.qcow2")
    imgtk("check", "--untrusted=require", "-r", "all", out / "c.qcow2")
    imgtk("info", "--untrusted=require", "--output=json", out / "c.qcow2")
    imgtk("create", "--untrusted=require", "-f", "qcow2", "-b", image, "-F", "qcow2", out / "o.qcow2")
    imgtk("rebase", "--untrusted=require", "-u", "-b", "", out / "o.qcow2")


def test_pipes_work_untrusted(place):
    """Their temporary files are opened before TMPDIR is out of reach."""
    raw = place / "disk.raw"
    command = ["sh", "-c", 'cat "$1" | "$0" convert --untrusted=require -O qcow2 - - | cat > "$2"', IMGTK, raw,
               place / "out/p.qcow2"]
    execute(command)
    imgtk("convert", "-O", "raw", place / "out/p.qcow2", place / "out/p.raw")
    assert_same_bytes(place / "out/p.raw", raw)


def test_data_file_in_another_folder(place):
    imgtk("convert", "-O", "qcow2", "-o", f"data_file={place}/secrets/disk.data", place / "disk.raw", place / "out/d.qcow2")
    imgtk("compare", "--allow-dir", place / "secrets", place / "out/d.qcow2", place / "disk.raw")
    imgtk("resize", "--allow-dir", place / "secrets", place / "out/d.qcow2", "+1M")


def test_destination_behind_links(place):
    (place / "out/there.raw").write_text("old")
    (place / "images/there").symlink_to("../out/there.raw")
    (place / "images/new").symlink_to("../out/new.raw")
    for name in ("there", "new"):
        imgtk("convert", "-O", "raw", place / "images/disk.qcow2", place / "images" / name)
        assert (place / "images" / name).is_symlink()
        assert_same_bytes(place / f"out/{name}.raw", place / "disk.raw")


def test_commit_into_an_allowed_folder(place):
    base = make_image(place / "secrets/base.qcow2", MIB)
    overlay = make_image(place / "out/overlay.qcow2", None, backing=base, backing_fmt="qcow2", writes=["write -P 9 0 4k"])
    for words in (["--allow-dir", place / "secrets"], ["--references=any"]):
        imgtk("commit", *words, overlay)


def test_destinations_that_are_no_files(place):
    image = place / "images/disk.qcow2"
    imgtk("convert", "-O", "raw", image, "null:")
    imgtk("convert", "-O", "raw", image, "/dev/null")
    execute(["sh", "-c", '"$0" convert -O raw "$1" /dev/stdout | cmp - "$2"', IMGTK, image, place / "disk.raw"])
    execute(["sh", "-c", '"$0" convert -O raw "$1" fd:3 3> "$2"', IMGTK, image, place / "out/three"])
    assert_same_bytes(place / "out/three", place / "disk.raw")


# ---- Telling -------------------------------------------------------------------------

def test_info_tells_what_is_in_force(still):
    image = still / "images/disk.qcow2"
    trusted = imgtk("info", "-v", image).err
    for line in ("Landlock \\(version [1-9]", "seccomp: not used", "references: beneath", "modules: from '/",
                 "output no limit, memory no limit, time no limit"):
        assert re.search(line, trusted), trusted
    untrusted = imgtk("info", "-v", "--untrusted=require", "--max-time=9", image).err
    for line in ("Landlock \\(version [1-9].*reads the sources", "seccomp: no network", "references: none",
                 "output 256 GiB, memory 2 GiB, time 9 s, metadata 64 MiB"):
        assert re.search(line, untrusted), untrusted


def test_a_kernel_without_landlock(still):
    """A filter of the test's own stands for it: what can be confined is, and `require` refuses before it reads."""
    image = still / "images/disk.qcow2"
    without = [sys.executable, TESTS / "faults/without_landlock.py", IMGTK]
    assert "not used" in execute([*without, "info", "-v", image]).err
    execute([*without, "info", "--untrusted", image])
    result = execute([*without, "info", "--untrusted=require", image], code=1)
    assert "--untrusted=require: Landlock is not used" in result.err and result.out == ""


def test_configuration(place):
    image, config = place / "images/disk.qcow2", place / "c.yaml"
    env = environment(IMGTK_CONFIG=config)
    config.write_text("untrusted: require\nmax_time: 77\nmax_output: 1M\n")
    notes = imgtk("info", "-v", image, env=env).err
    assert "seccomp: no network" in notes and "output 1 MiB" in notes and "time 77 s" in notes
    notes = imgtk("info", "-v", "--untrusted=no", "--max-time=0", image, env=env).err
    assert "seccomp: not used" in notes and "time no limit" in notes

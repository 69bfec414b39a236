"""What imgtk says beside its results: what it did with -v, nothing with -q, hints, and colours for people alone."""
import os
import pty
import re
import shutil
import subprocess

import pytest

from imgtk_test import (IMGTK, KIB, MIB, Result, check_sanitizers, compressible, environment, execute, imgtk,
                        imgtk_fails, make_image, make_raw)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """base.raw, and over.qcow2 over it."""
    folder = tmp_path_factory.mktemp("images")
    make_raw(folder / "base.raw", 4 * MIB, [(MIB, compressible(100 * KIB))])
    make_image(folder / "over.qcow2", None, backing="base.raw", backing_fmt="raw", writes=["write -P 7 0 64k"])
    return folder


@pytest.fixture
def folder(images, tmp_path, monkeypatch):
    """A copy of them, as the working folder."""
    for image in images.iterdir():
        shutil.copy(image, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_terminal(*words, **changes):
    """What a run with standard error at a terminal writes there."""
    ours, theirs = pty.openpty()
    env = environment(**{"TERM": "xterm", "NO_COLOR": None, **changes})
    process = subprocess.Popen([IMGTK, *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 4096):
            text += data
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    result = check_sanitizers(Result(words, process.wait(timeout=60), "", text.decode()))
    return result.err.replace("\r\n", "\n")


# ---- What is done


def test_verbose_tells_modules_chain_policy_and_copy_method(folder):
    err = imgtk("convert", "-v", "-m", "2", "over.qcow2", "out.vdi").err
    assert [line for line in err.splitlines() if not line.startswith("imgtk: ")] == []
    for expected in ["/qcow2.so", "layer 0: over.qcow2: qcow2, a disk of 4194304 bytes", "layer 1: base.raw: raw",
                     "reference: 'base.raw' is opened, --references=beneath allows it", "/vdi.so",
                     "converting over.qcow2 (qcow2, by its content) to out.vdi (vdi, by its suffix)",
                     "convert: 2 threads, pieces of 1024 KiB", "copy: by read and write"]:
        assert expected in err
    assert "--references=any allows it" in imgtk("map", "-v", "--references=any", "over.qcow2").err


@pytest.mark.parametrize("words", [["info"], ["map"], ["check"], ["compare", "over.qcow2"], ["measure", "-O", "raw"],
                                   ["snapshot", "-c", "name"], ["bitmap"], ["rebase", "-u", "-b", "base.raw", "-F", "raw"],
                                   ["resize", "-f", "qcow2"], ["commit", "-d"]], ids=lambda words: words[0])
def test_verbose_and_quiet_are_taken_by_all(folder, words):
    operands = ["over.qcow2", *(["4M"] if words[0] == "resize" else [])]
    assert "layer 0: over.qcow2: qcow2" in imgtk(*words, "-v", *operands).err
    plain = imgtk(*words, *operands)
    assert plain.err == ""
    assert imgtk(*words, "-q", *operands).err == ""


# ---- Guesses


@pytest.mark.parametrize("words, told", [
    (["base.raw", "o.img"], "base.raw (raw, since no format recognises its content) to o.img (raw, by its suffix)"),
    (["over.qcow2", "o.VMDK"], "over.qcow2 (qcow2, by its content) to o.VMDK (vmdk, by its suffix)"),
    (["-f", "raw", "base.raw", "o.vhd"], "base.raw (raw) to o.vhd (vpc, by its suffix)"),
    (["-O", "raw", "over.qcow2", "o.vhd"], "over.qcow2 (qcow2, by its content) to o.vhd (raw)"),
    (["-f", "raw", "base.raw", "base.raw", "o.iso"],
     "base.raw (raw), base.raw (raw) to o.iso (raw, since its name tells no format)"),
])
def test_guesses_are_told(folder, words, told):
    line = f"imgtk: converting {told}\n"
    assert line in imgtk("convert", "-v", *words).err
    assert on_terminal("convert", *words, NO_COLOR="1") == line
    assert on_terminal("convert", "-q", *words) == ""
    assert imgtk("convert", *words).err == ""


def test_nothing_is_told_where_nothing_is_guessed(folder):
    assert on_terminal("convert", "-f", "raw", "-O", "raw", "base.raw", "o.vhd") == ""


@pytest.mark.parametrize("suffix, name", [("raw", "raw"), ("img", "raw"), ("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vdi", "vdi"),
                                          ("vhd", "vpc"), ("VHDX", "vhdx"), ("bin", "raw"), ("", "raw")])
def test_suffixes(tmp_path, suffix, name):
    assert f"fmt={name} " in imgtk("create", tmp_path / f"disk.{suffix}", "1M").out


# ---- Hints


@pytest.mark.parametrize("words, message", [
    (["create", "-f", "qcow", "x", "1M"], r"Unknown file format 'qcow'; did you mean 'qcow2'\? \(installed: raw, "),
    (["create", "-f", "parallels", "x", "1M"], r"'parallels' \(installed: raw, .* would be in a package imgtk-format-parallels\)"),
    (["create", "-f", "qcow2", "-o", "clustersize=1M", "x", "1M"], "did you mean 'cluster_size'"),
    (["create", "-f", "vdi", "-o", "nonsense=1", "x", "1M"], r"unknown option 'nonsense' \(known: static, preallocation, "),
    (["checksum", "-a", "sha265", "x"], r"Unknown digest 'sha265'; did you mean 'sha256'\? \(installed: "),
    (["create", "-f", "qcow2", "-o", "compat=3", "x", "1M"], "choose one of: 0.10, 1.1, v2, v3"),
])
def test_hints(tmp_path, words, message):
    imgtk_fails(*words, match=message, cwd=tmp_path)


@pytest.mark.parametrize("words, message", [
    (["create", "x.qcow2", "1M"], "x.qcow2: Unknown file format 'qcow2': install imgtk-format-qcow2 (installed: raw)"),
    (["create", "x.vhd", "1M"], "x.vhd: Unknown file format 'vpc': install imgtk-format-vpc (installed: raw)"),
    (["create", "-f", "vhd", "x", "1M"], "Unknown file format 'vhd': install imgtk-format-vpc (installed: raw)"),
    (["create", "-f", "vmkd", "x", "1M"], "Unknown file format 'vmkd'; did you mean 'vmdk'? (installed: raw)"),
])
def test_a_format_whose_module_is_missing_has_a_package(tmp_path, words, message):
    (tmp_path / "modules").mkdir()
    result = imgtk(*words, cwd=tmp_path, env=environment(IMGTK_MODULE_PATH=tmp_path / "modules"), code=1)
    assert result.err == f"imgtk: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["modules"]


# ---- Colours


@pytest.mark.parametrize("words, redirected, code, message", [
    ("compare base.raw base.raw", ">/dev/full", 2, "cannot write the output: No space left on device"),
    ("compare base.raw o.raw", ">/dev/full", 1, "cannot write the output: No space left on device"),
    ("compare --help", ">/dev/full", 2, "cannot write the output: No space left on device"),
    ("check over.qcow2", ">/dev/full", 1, "cannot write the output: No space left on device"),
    ("create -f qcow2 new 1M", ">/dev/full", 1, "cannot write the output"),
    ("info base.raw", ">&-", 1, "cannot write the output: Bad file descriptor"),
    ("convert -O raw - o.raw", "<&-", 1, "Could not open '-': it is open for writing only"),
    ("convert over.qcow2 fd:0", "<o.raw", 1, "Could not open 'fd:0': it is open for reading only"),
    ("convert -n -O raw over.qcow2 fd:0", "<o.raw", 1, "Could not open 'fd:0': it is open for reading only"),
])
def test_what_the_shell_gave_cannot_be_used(folder, words, redirected, code, message):
    """One line, and never 1 of compare, which means that the disks differ."""
    make_raw("o.raw", MIB, [(0, b"other")])
    result = execute(["sh", "-c", f'exec "$0" {words} {redirected}', IMGTK], code=code)
    assert result.err == f"imgtk: {message}\n"


@pytest.mark.parametrize("words", ["convert over.qcow2 o.raw", "convert -O qcow2 over.qcow2 o.raw",
                                   "create -f raw o.raw 4M", "commit over.qcow2"])
def test_a_limit_of_the_shell_is_an_error_like_others(folder, words):
    result = execute(["sh", "-c", f'ulimit -f 16; exec "$0" {words}', IMGTK], code=1)
    assert re.fullmatch(r"imgtk: \S+: cannot .*: File too large\n", result.err), result
    assert not os.path.exists("o.raw")


def test_colours_are_for_terminals(folder):
    red = on_terminal("info", "missing")
    assert red == "\033[1;31mimgtk:\033[0m Could not open 'missing': No such file or directory\n"
    plain = "imgtk: Could not open 'missing': No such file or directory\n"
    assert on_terminal("info", "missing", NO_COLOR="1") == plain
    assert on_terminal("info", "missing", TERM="dumb") == plain
    assert imgtk("info", "missing", code=1).err == plain
    assert "\033" in on_terminal("convert", "base.raw", "o.img", NO_COLOR="")

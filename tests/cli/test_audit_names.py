"""No destination, and no file that it brings with it, may replace a source, a backing file or the destination itself."""
import os
import subprocess

import pytest

from imgtk_test import IMGTK, MIB, compressible, digest, environment, imgtk, imgtk_fails, make_raw


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """disk.raw, base.qcow2 and disk-flat.vmdk in the working folder."""
    monkeypatch.chdir(tmp_path)
    make_raw("disk.raw", 4 * MIB, [(MIB, compressible(MIB))])
    imgtk("convert", "-O", "qcow2", "disk.raw", "base.qcow2")
    os.link(make_raw("other.raw", MIB, [(0, compressible(MIB))]), "disk-flat.vmdk")
    return tmp_path


def assert_refused(match, *words, stdout=None):
    before = {name: digest(name) for name in os.listdir()}
    imgtk_fails("convert", *words, match=match)
    assert {name: digest(name) for name in os.listdir()} == before, "a refused command changes nothing"


@pytest.mark.parametrize("name", ["disk.raw", "./disk.raw", "file:disk.raw", "file:./disk.raw", "link.raw", "hard.raw"])
@pytest.mark.parametrize("words", [[], ["-n"], ["-n", "--target-is-zero"]], ids=" ".join)
def test_a_source_is_no_destination(folder, name, words):
    os.symlink("disk.raw", "link.raw")
    os.link("disk.raw", "hard.raw")
    assert_refused("source and target are the same file", *words, "-f", "raw", "-O", "raw", "disk.raw", name)


def test_a_source_is_not_written_through_a_descriptor(folder):
    before = digest("disk.raw")
    with open("disk.raw", "r+b") as file:
        for words, options in ((["-"], {"stdout": file}),
                               (["-n", f"fd:{file.fileno()}"], {"stdout": subprocess.DEVNULL, "pass_fds": [file.fileno()]})):
            done = subprocess.run([IMGTK, "convert", "-f", "raw", "-O", "raw", *words[:-1], "disk.raw", words[-1]],
                                  stderr=subprocess.PIPE, env=environment(), **options)
            assert done.returncode == 1 and b"same file" in done.stderr, words
    assert digest("disk.raw") == before


@pytest.mark.parametrize("name, match", [("disk.raw", "source and target are the same file"),
                                         ("base.qcow2", "its own backing file"), ("new.qcow2", "is the target itself"),
                                         ("./new.qcow2", "is the target itself")])
def test_a_data_file_replaces_nothing_in_use(folder, name, match):
    words = ["-B", "base.qcow2", "-F", "qcow2"] if name == "base.qcow2" else []
    assert_refused(match, "-O", "qcow2", *words, "-o", f"data_file={name}", "disk.raw", "new.qcow2")
    assert_refused(match, "-O", "qcow2", *words, "-o", f"data_file={os.getcwd()}/{name}", "disk.raw", "new.qcow2")


def test_a_data_file_is_not_the_destination_that_is_there(folder):
    os.symlink("other.raw", "link.raw")
    assert_refused("is the target itself", "-O", "qcow2", "-o", "data_file=link.raw", "disk.raw", "other.raw")


def test_an_extent_replaces_no_source(folder):
    assert_refused("source and target are the same file", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat",
                   "disk-flat.vmdk", "disk.vmdk")


def test_a_data_file_beside_the_destination_is_made(folder):
    imgtk("convert", "-O", "qcow2", "-o", "data_file=new.data", "disk.raw", "new.qcow2")
    assert imgtk("compare", "disk.raw", "new.qcow2").out == "Images are identical.\n"


def test_a_pipe_cannot_be_resumed(folder):
    with open("disk.raw", "rb") as disk:
        result = imgtk("convert", "--resume", "-f", "raw", "-", "out.raw", input=disk.read(), code=1)
    assert "--resume is not for a pipe as source" in result.err
    assert not any(name.startswith("out") for name in os.listdir())

"""convert's options that have nbdcopy's names and meaning: each is told by what it changes, not by being taken."""
import re
import time

import pytest

from imgtk_test import (IMGTK, KIB, MIB, allocated, assert_same_bytes, compressible, environment, execute, imgtk,
                        imgtk_fails, make_raw, tool)


@pytest.fixture
def source(tmp_path):
    return make_raw(tmp_path / "source.raw", 8 * MIB, [(0, compressible(MIB)), (5 * MIB, compressible(MIB, 2))])


def test_allocated_leaves_no_holes(source, tmp_path):
    imgtk("convert", "-f", "raw", "-O", "raw", source, tmp_path / "sparse")
    imgtk("convert", "--allocated", "-f", "raw", "-O", "raw", source, tmp_path / "full")
    assert allocated(tmp_path / "sparse") < 3 * MIB <= 8 * MIB <= allocated(tmp_path / "full")
    assert_same_bytes(source, tmp_path / "full")


def traced(tmp_path, calls, *words):
    log = tmp_path / "strace"
    execute([tool("strace"), "-f", "-e", calls, "-o", log, IMGTK, *words], env=environment(LSAN_OPTIONS="detect_leaks=0"))
    return log.read_text()


@pytest.mark.unsanitized
def test_no_extents_reads_everything(source, tmp_path):
    words = ["-f", "raw", "-O", "raw", source, tmp_path / "out"]

    def read_bytes(*flags):
        text = traced(tmp_path, "trace=pread64", "convert", *flags, *words)
        return sum(int(size) for size in re.findall(r"= (\d+)$", text, re.M) if int(size) > 64 * KIB)

    assert read_bytes() < 3 * MIB
    assert read_bytes("--no-extents") == 8 * MIB
    assert_same_bytes(source, tmp_path / "out")
    assert allocated(tmp_path / "out") < 3 * MIB


@pytest.mark.unsanitized
@pytest.mark.parametrize("flags, threads", [(["--synchronous"], 0), (["--threads=4"], 3), (["--queue-size=2M"], 0), (["-T", "4"], 3),
                                            (["--threads=4", "--queue-size=6M"], 2)])
def test_how_many_threads_work(source, tmp_path, flags, threads):
    text = traced(tmp_path, "trace=clone3,clone", "convert", *flags, "-f", "raw", "-O", "raw", source, tmp_path / "out")
    assert len(re.findall(r"clone3?\(", text)) == threads
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.parametrize("flag", ["--rate-limit=8M", "-r8M"])
def test_a_rate_is_kept(tmp_path, flag):
    """The letter is qemu-img's."""
    source = make_raw(tmp_path / "source.raw", 8 * MIB, [(0, compressible(8 * MIB))])
    begun = time.monotonic()
    imgtk("convert", flag, "-S", "4k", "-f", "raw", "-O", "raw", source, tmp_path / "out")
    # The first piece goes at once, and so the last one begins 6 MiB later.
    assert time.monotonic() - begun >= 0.7
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.parametrize("flag, match", [("--rate-limit=fast", "rate"), ("--rate-limit=0", "rate"),
                                         ("--queue-size=0", "queue")])
def test_values_that_make_no_sense(source, tmp_path, flag, match):
    imgtk_fails("convert", flag, "-f", "raw", "-O", "raw", source, tmp_path / "out", match=match)
    assert not (tmp_path / "out").exists()


def test_flush_is_what_happens_anyway(source, tmp_path):
    imgtk("convert", "--flush", "--sparse=4k", "-f", "raw", "-O", "raw", source, tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.parametrize("flags", [["--threads=0"], ["-T", "none"], ["-C"], ["-C", "4"], ["-C4"], ["-T0"]])
def test_letters_that_mean_two_things(source, tmp_path, flags):
    """To nbdcopy they have numbers, to qemu-img a mode and nothing."""
    imgtk("convert", *flags, "-f", "raw", "-O", "raw", source, tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")


def test_a_source_whose_name_is_a_number(source, tmp_path):
    source.rename(tmp_path / "4")
    imgtk("convert", "-C", "4", "out", cwd=tmp_path)
    assert_same_bytes(tmp_path / "4", tmp_path / "out")

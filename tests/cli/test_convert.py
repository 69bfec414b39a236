"""The command line of convert: what it takes and refuses, progress, signals, pipes. What it writes: tests/oracle."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

from imgtk_test import (IMGTK, KIB, MIB, assert_same_bytes, compressible, environment, imgtk, imgtk_fails,
                        make_raw, qemu_img, qemu_io)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """disk.raw and disk.qcow2, which hold the same, in the working folder."""
    monkeypatch.chdir(tmp_path)
    make_raw("disk.raw", 8 * MIB, [(MIB, compressible(MIB)), (5 * MIB, compressible(300 * KIB, seed=2))])
    qemu_img("convert", "-O", "qcow2", "disk.raw", "disk.qcow2")
    return tmp_path


def nothing_new(folder, before):
    assert sorted(os.listdir(folder)) == before


# ---- What it takes

def test_formats_are_found_out(folder):
    result = imgtk("convert", "-v", "disk.qcow2", "out.raw")
    assert "imgtk: converting disk.qcow2 (qcow2, by its content) to out.raw (raw, by its suffix)\n" in result.err
    assert_same_bytes("disk.raw", "out.raw")
    assert imgtk("convert", "disk.qcow2", "other").err == ""
    assert_same_bytes("disk.raw", "other")


@pytest.mark.parametrize("words", [["-fqcow2", "-Oraw"],
                                   ["-f", "qcow2", "-O", "raw", "-W", "-m", "4", "-t", "none", "-T", "none"],
                                   ["--source-format=qcow2", "--target-format=raw", "--workers=1", "--no-sync"],
                                   ["-pqf", "qcow2"], ["-U", "-C", "-S", "64k"], ["-S", "0"]], ids=" ".join)
def test_flags(folder, words):
    result = imgtk("convert", *words, "disk.qcow2", "out.raw")
    assert result.out == result.err == ""
    assert_same_bytes("disk.raw", "out.raw")


def test_options_may_follow_the_names(folder):
    imgtk("convert", "disk.qcow2", "out.raw", "-f", "qcow2")
    assert_same_bytes("disk.raw", "out.raw")


def test_image_opts(folder):
    imgtk("convert", "--image-opts", "driver=qcow2,file.filename=disk.qcow2", "out.raw")
    assert_same_bytes("disk.raw", "out.raw")


def test_sources_are_put_behind_each_other(folder):
    imgtk("convert", "disk.qcow2", "disk.raw", "disk.qcow2", "out.raw")
    with open("disk.raw", "rb") as one, open("out.raw", "rb") as three:
        assert three.read() == one.read() * 3


@pytest.mark.parametrize("name", ["one", "1", "snapshot.id=1", "snapshot.name=one", "snapshot.id=1,snapshot.name=x"])
def test_snapshot(folder, name):
    qemu_img("snapshot", "-c", "one", "disk.qcow2")
    qemu_io("disk.qcow2", "write -P 7 0 2M")
    imgtk("convert", "-l", name, "disk.qcow2", "out.raw")
    assert_same_bytes("disk.raw", "out.raw")


def test_standard_output(folder):
    out = imgtk("convert", "-O", "raw", "-p", "disk.qcow2", "-")
    with open("disk.raw", "rb") as disk:
        assert out.raw == disk.read()
    assert "(100.00/100%)" in out.err, "progress does not go where the image goes"


def test_standard_input(folder):
    with open("disk.raw", "rb") as disk:
        imgtk("convert", "-f", "raw", "-", "out.raw", input=disk.read())
    assert_same_bytes("disk.raw", "out.raw")


# ---- What it refuses

@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_source_that_need_not_end(folder, device):
    for words in (["convert", device, "out.raw"], ["info", device], ["map", "-f", "raw", device]):
        imgtk_fails(*words, match=f"{device}: it is a character device", timeout=20)
    imgtk_fails("convert", "-", "out.raw", match="-: it is a character device")  # here it is /dev/null
    assert not os.path.exists("out.raw")


REFUSED = [
    (["disk.raw"], "Must specify image file name"),
    ([], "Must specify image file name"),
    (["nx", "out"], "Could not open 'nx': No such file or directory"),
    (["-O", "foo", "disk.raw", "out"], "Unknown file format 'foo'"),
    (["-f", "foo", "disk.raw", "out"], "Unknown file format 'foo'"),
    (["-c", "-O", "raw", "disk.raw", "out"], "Compression not supported for this file format"),
    (["-l", "nx", "disk.qcow2", "out"], "nx"),
    (["-l", "nx", "disk.qcow2", "disk.qcow2", "out"], "No support for concatenating multiple snapshot"),
    (["-S", "3", "disk.raw", "out"], "Invalid buffer size for sparse output specified"),
    (["-S", "17M", "disk.raw", "out"], "Invalid buffer size for sparse output specified"),
    (["-m", "0", "disk.raw", "out"], "Invalid number of workers '0'"),
    (["-m", "1000", "disk.raw", "out"], "Invalid number of workers '1000'"),
    (["-t", "foo", "disk.raw", "out"], "Invalid cache option: foo"),
    (["-T", "foo", "disk.raw", "out"], "Invalid source cache option: foo"),
    (["-n", "disk.raw", "out"], "out.*No such file or directory"),
    (["--target-is-zero", "disk.raw", "out"], "--target-is-zero requires use of -n flag"),
    (["-n", "disk.raw", "-"], "-n and a pipe"),
    (["-o", "nonsense=1", "disk.raw", "out"], "unknown option 'nonsense'"),
    (["-o", ",a=1", "disk.raw", "out"], "Invalid option list: ,a=1"),
    (["-o", "preallocation=off,", "disk.raw", "out"], "Invalid option list"),
    (["-B", "disk.raw", "-O", "raw", "disk.raw", "out"], "Backing file not supported for file format 'raw'"),
    (["--progress=99", "disk.raw", "out"], "--progress=99"),
    (["--progress=x", "disk.raw", "out"], "--progress=x"),
    (["--progress-format=x", "-p", "disk.raw", "out"], "--progress-format must be plain or jsonl"),
    (["disk.raw", "nx/out"], "nx/out"),
    (["disk.raw", "disk.raw"], "same file"),
]


@pytest.mark.parametrize("words, message", REFUSED, ids=[" ".join(words) or "nothing" for words, _ in REFUSED])
def test_refused(folder, words, message):
    before = sorted(os.listdir(folder))
    result = imgtk("convert", *words, code=1)
    assert re.search(message, result.err.splitlines()[0]), result
    assert result.err.startswith("imgtk: ")
    assert result.out == ""
    nothing_new(folder, before)


def test_a_failure_keeps_the_previous_file(folder):
    make_raw("out.raw", KIB, [(0, b"precious")])
    with open("disk.qcow2", "r+b") as file:
        file.truncate(400 * KIB)
    imgtk_fails("convert", "-f", "qcow2", "disk.qcow2", "out.raw")
    with open("out.raw", "rb") as out:
        assert out.read(8) == b"precious"


@pytest.mark.threads
def test_salvage(folder):
    qemu_img("convert", "-c", "-O", "qcow2", "disk.raw", "packed.qcow2")
    offset = 5 * 65536 + 5000  # inside the compressed clusters, which follow five clusters of metadata
    with open("packed.qcow2", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 100)
    imgtk_fails("convert", "packed.qcow2", "out.raw")
    assert not os.path.exists("out.raw")
    result = imgtk("convert", "--salvage", "packed.qcow2", "out.raw")
    assert result.err and all(line.startswith("imgtk: warning: ") for line in result.err.splitlines())
    assert "become zeroes" in result.err
    with open("out.raw", "rb") as out, open("disk.raw", "rb") as disk:
        ours, whole = out.read(), disk.read()
    different = [at for at in range(0, len(whole), 65536) if ours[at:at + 65536] != whole[at:at + 65536]]
    assert len(ours) == len(whole)
    assert different and all(not any(ours[at:at + 65536]) for at in different), "what is lost reads as zeroes"


def test_salvage_of_a_damaged_map(folder):
    """A table that cannot be read costs what it maps, and the rest is saved."""
    qemu_img("convert", "-O", "qcow2", "-o", "cluster_size=4k", "disk.raw", "cut.qcow2")
    size = os.path.getsize("cut.qcow2")
    os.truncate("cut.qcow2", size // 2)
    imgtk_fails("convert", "cut.qcow2", "out.raw")
    result = imgtk("convert", "--salvage", "cut.qcow2", "out.raw")
    told = re.findall(r"warning: (\d+) bytes at offset (\d+) become zeroes", result.err)
    lost = sorted((int(at), int(at) + int(length)) for length, at in told)
    assert max(end - at for at, end in lost) > 4 * KIB, "not a line for each sector"
    assert all(end < following or following % (512 * KIB) == 0 for (_, end), (following, _) in zip(lost, lost[1:]))
    with open("out.raw", "rb") as out, open("disk.raw", "rb") as disk:
        ours, whole = out.read(), disk.read()
    blocks = [(ours[at:at + 4096], whole[at:at + 4096]) for at in range(0, len(whole), 4096)]
    assert len(ours) == len(whole)
    assert all(mine == theirs or not any(mine) for mine, theirs in blocks)
    assert sum(mine == theirs and any(mine) for mine, theirs in blocks) > 0, "something is saved"


def test_closed_descriptors_are_not_taken_for_the_image(folder):
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'exec "$0" convert -p -v disk.qcow2 out.raw {closed}', IMGTK],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        assert done.returncode in (0, 1)
        assert_same_bytes("disk.raw", "out.raw")


# ---- Progress

def test_progress_line(folder):
    out = imgtk("convert", "-p", "disk.qcow2", "out.raw").raw.decode()
    assert out.startswith("    (0.00/100%)\r")
    assert out.endswith("    (100.00/100%)\r\n")
    assert all(part.startswith("    (") and part.endswith("/100%)") for part in out[:-2].split("\r"))


def test_progress_for_a_program(folder):
    read, write = os.pipe()
    subprocess.run([IMGTK, "convert", f"--progress={write}", "disk.qcow2", "out.raw"], pass_fds=[write],
                   env=environment(), check=True)
    os.close(write)
    with open(read) as pipe:
        lines = pipe.read().splitlines()
    assert all(line.endswith("/100") for line in lines)
    numbers = [int(line.split("/")[0]) for line in lines]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0 and numbers[-1] == 100


@pytest.mark.threads
def test_progress_as_jsonl(folder):
    read, write = os.pipe()
    subprocess.run([IMGTK, "convert", f"--progress={write}", "--progress-format=jsonl", "disk.qcow2", "out.raw"],
                   pass_fds=[write], env=environment(), check=True)
    os.close(write)
    with open(read) as pipe:
        rows = [json.loads(line) for line in pipe]
    assert rows[-1]["done"] == rows[-1]["total"] == 8 * MIB
    assert set(rows[-1]) == {"phase", "done", "total", "copied", "rate", "elapsed"}
    assert 0 < rows[-1]["copied"] < 8 * MIB


def test_progress_bar_on_a_terminal(folder):
    import pty
    parent, child = pty.openpty()
    subprocess.run([IMGTK, "convert", "-p", "disk.qcow2", "out.raw"], stdout=child, env=environment(), check=True)
    os.close(child)
    drawn = b""
    try:
        while piece := os.read(parent, 4096):
            drawn += piece
    except OSError:
        pass  # how a terminal's other side tells the end
    os.close(parent)
    last = drawn.decode().split("\r")[-2]
    assert last.startswith("100.0% [####") and "/s" in last and "in all" in last


# ---- Signals

class Slow:
    """A conversion to a pipe that the test empties slowly, or from one that it fills slowly."""

    def __init__(self, *words, reads):
        make_raw("big.raw", 64 * MIB, [(0, compressible(MIB) * 64)])
        self.reads = reads
        pipe = {"stdout" if reads else "stdin": subprocess.PIPE}
        self.process = subprocess.Popen([IMGTK, "convert", "-f", "raw", *words], stderr=subprocess.PIPE,
                                        env=environment(), **pipe)

    def go_on(self, seconds):
        """Reads or writes a little at a time, until the time is over or imgtk has ended."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end and self.process.poll() is None:
                if self.reads:
                    self.process.stdout.read1(65536)
                else:
                    self.process.stdin.write(b"x" * 65536)
                    self.process.stdin.flush()
                time.sleep(0.005)
        except BrokenPipeError:
            pass

    def end(self):
        """The exit code and what was printed on stderr."""
        err = self.process.communicate(timeout=60)[1]
        return self.process.returncode, err.decode()


@pytest.mark.threads
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_while_it_writes(folder, number):
    slow = Slow("-O", "raw", "big.raw", "-", reads=True)
    slow.go_on(0.3)
    slow.process.send_signal(number)
    slow.go_on(30)
    assert slow.end() == (1, f"imgtk: interrupted by {number.name}\n")


@pytest.mark.threads
def test_a_signal_stops_it_while_it_reads_a_pipe(folder):
    make_raw("out.raw", KIB, [(0, b"precious")])
    slow = Slow("-", "out.raw", reads=False)
    before = sorted(os.listdir(folder))
    slow.go_on(0.5)
    slow.process.send_signal(signal.SIGINT)
    slow.go_on(30)
    assert slow.end() == (1, "imgtk: interrupted by SIGINT\n")
    nothing_new(folder, before)
    with open("out.raw", "rb") as out:
        assert out.read(8) == b"precious"


@pytest.mark.threads
def test_a_second_signal_ends_it_at_once(folder):
    slow = Slow("-", "out.raw", reads=False)
    slow.go_on(0.2)
    slow.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    slow.process.send_signal(signal.SIGINT)
    assert slow.process.wait(10) in (-signal.SIGINT, 1)
    slow.end()


@pytest.mark.threads
def test_sigusr1_tells_the_progress(folder):
    slow = Slow("-O", "raw", "big.raw", "-", reads=True)
    slow.go_on(0.3)
    slow.process.send_signal(signal.SIGUSR1)
    slow.go_on(0.5)
    code, err = slow.end()
    assert code == 0
    assert err.startswith("    (") and err.endswith("/100%)\n")


def test_a_reader_that_goes_away_is_an_error(folder):
    make_raw("big.raw", 8 * MIB, [(0, compressible(MIB) * 8)])
    with subprocess.Popen([IMGTK, "convert", "-O", "raw", "big.raw", "-"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment()) as process:
        process.stdout.read(1000)
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Broken pipe" in err and len(err.splitlines()) == 1

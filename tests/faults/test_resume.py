"""--resume: what was interrupted goes on where it was, and the result is the one of an undisturbed run."""
import random
import subprocess
import time

import pytest

from imgtk_test import IMGTK, MIB, environment, imgtk, imgtk_fails, qemu_img


def random_disk(path, size, seed):
    """Data, holes and zeroes inside data, at odd places."""
    maker = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(120):
            file.seek(maker.randrange(0, size - 2 * MIB) & ~511)
            file.write(maker.randbytes(maker.randrange(1, 1 * MIB)) + bytes(maker.randrange(0, 200_000)))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    random_disk(folder / "disk.raw", 160 * MIB + 512, 7)
    qemu_img("convert", "-c", "-O", "qcow2", folder / "disk.raw", folder / "disk.qcow2")
    return folder / "disk.qcow2"


def kill_after(seconds, *words):
    """Runs imgtk and kills it after a while; whether it was still running then."""
    with subprocess.Popen([IMGTK, *words], env=environment(), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            return True


@pytest.mark.slow
@pytest.mark.parametrize("form, options", [("raw", ""), ("qcow2", "cluster_size=4k"), ("qcow2", "cluster_size=512")])
def test_twenty_kills(source, tmp_path, form, options):
    words = ["convert", "-f", "qcow2", "-O", form, *(["-o", options] if options else []), "-m", "2", source]
    start = time.monotonic()
    imgtk(*words, tmp_path / "undisturbed")
    whole = time.monotonic() - start
    maker = random.Random(form + options)
    killed = 0
    for _ in range(20):
        killed += kill_after(maker.uniform(0, whole), *words, "--resume", tmp_path / "disk")
        assert not ((tmp_path / "disk").exists() and (tmp_path / "disk.imgtk-part").exists())
        if (tmp_path / "disk").exists():
            assert (tmp_path / "disk").read_bytes() == (tmp_path / "undisturbed").read_bytes()
            (tmp_path / "disk").unlink()
    assert killed > 0
    imgtk(*words, "--resume", tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "undisturbed"]


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def interrupted(source, tmp_path, *options):
    """An unfinished conversion with something in its journal."""
    words = ["convert", "-f", "qcow2", "-O", "raw", *options, source, tmp_path / "disk"]
    journal = tmp_path / "disk.imgtk-resume"
    for _ in range(50):
        with subprocess.Popen([IMGTK, *words, "--resume"], env=environment()) as process:
            while process.poll() is None:
                if size_of(journal) > 16:
                    process.kill()
                    process.wait()
                time.sleep(0.0005)
        if size_of(journal) > 16:
            return words
        (tmp_path / "disk").unlink(missing_ok=True)
    pytest.fail("no attempt was interrupted in the middle")


def test_work_is_kept(source, tmp_path):
    words = interrupted(source, tmp_path)
    assert "going on" in imgtk(*words, "--resume", "-v").err
    imgtk("convert", "-f", "qcow2", "-O", "raw", source, tmp_path / "undisturbed")
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "undisturbed").read_bytes()


@pytest.mark.parametrize("form, options", [("raw", []), ("qcow2", ["-o", "cluster_size=4k"])])
def test_checksum_of_all_of_it(source, tmp_path, form, options):
    """Also of what was written before, without one: it ends within a block of the digest."""
    words = interrupted(source, tmp_path, "-O", form, *options)
    result = imgtk(*words, "--resume", "--checksum", "--verify", "-v")
    assert "going on" in result.err
    assert result.out.split()[0] == imgtk("checksum", source).out.split()[0]


def test_changed_source_is_refused(source, tmp_path):
    copy = tmp_path / "copy.qcow2"
    copy.write_bytes(source.read_bytes())
    words = interrupted(copy, tmp_path)
    time.sleep(0.02)
    copy.touch()
    imgtk_fails(*words, "--resume", match="changed since this conversion began: remove '.*imgtk-resume'")
    assert not (tmp_path / "disk").exists()


def test_other_options_are_refused(source, tmp_path):
    words = interrupted(source, tmp_path)
    imgtk_fails(*words, "--resume", "-S", "64k", match="options have changed")


def test_a_torn_journal_is_cut(source, tmp_path):
    words = interrupted(source, tmp_path)
    journal = tmp_path / "disk.imgtk-resume"
    with open(journal, "r+b") as file:
        file.truncate(journal.stat().st_size - 5)
        file.seek(0, 2)
        file.write(b"\xff" * 99)
    imgtk(*words, "--resume")
    imgtk("convert", "-f", "qcow2", "-O", "raw", source, tmp_path / "undisturbed")
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "undisturbed").read_bytes()


def test_a_strange_journal_stays(source, tmp_path):
    (tmp_path / "disk.imgtk-resume").write_text("the user's own notes, long enough")
    imgtk_fails("convert", "-f", "qcow2", "-O", "raw", "--resume", source, tmp_path / "disk", match="not a journal")
    assert (tmp_path / "disk.imgtk-resume").read_text() == "the user's own notes, long enough"


@pytest.mark.parametrize("words, reason", [
    (["-O", "qcow2", "-c"], "uncompressed"), (["-O", "vdi"], "not for format vdi"),
    (["-O", "qcow2", "-o", "extended_l2=on"], "extended_l2"), (["-O", "raw", "-o", "preallocation=full"], "preallocation"),
    (["-O", "qcow2", "-o", "data_file=other.raw"], "one file")])
def test_what_cannot_resume_is_refused(source, tmp_path, words, reason):
    imgtk_fails("convert", "-f", "qcow2", *words, "--resume", source, tmp_path / "disk", match=reason)
    assert list(tmp_path.iterdir()) == []

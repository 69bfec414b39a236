"""--resume: what was interrupted goes on where it was, and the result is the one of an undisturbed run."""
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgtk_test import IMGTK, MIB, environment, execute, imgtk, imgtk_fails, missing, qemu_img


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


@pytest.mark.parametrize("form, options", [("raw", []), ("qcow2", ["-o", "cluster_size=4k"])])
def test_a_journal_without_its_file(source, tmp_path, form, options):
    """As after a kill between the last two steps: the file has its name, and the journal is still there."""
    words = interrupted(source, tmp_path, "-O", form, *options)
    journal = (tmp_path / "disk.imgtk-resume").read_bytes()
    imgtk(*words, "--resume")
    undisturbed = (tmp_path / "disk").read_bytes()
    (tmp_path / "disk.imgtk-resume").write_bytes(journal)
    assert "from the beginning" in imgtk(*words, "--resume", "-v").err
    assert (tmp_path / "disk").read_bytes() == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


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


def test_a_link_is_kept_and_so_are_permissions(source, tmp_path):
    (tmp_path / "far").mkdir()
    old, link = tmp_path / "far/old", tmp_path / "link"
    old.write_text("the previous file")
    old.chmod(0o640)
    os.chown(old, os.getuid(), 12345 if os.getuid() == 0 else os.getgid())
    before = old.stat()
    link.symlink_to("far/old")
    imgtk("convert", "-f", "qcow2", "-O", "raw", "--resume", source, link)
    imgtk("convert", "-f", "qcow2", "-O", "raw", source, tmp_path / "undisturbed")
    assert link.is_symlink() and old.read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert (old.stat().st_mode, old.stat().st_uid, old.stat().st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listdir(tmp_path / "far") == ["old"]


def test_an_unfinished_file_has_the_permissions_of_the_previous_one(source, tmp_path):
    (tmp_path / "disk").touch(mode=0o600)
    words = ["convert", "-f", "qcow2", "-O", "raw", source, tmp_path / "disk"]
    seen = set()
    with subprocess.Popen([IMGTK, *words, "--resume"], env=environment()) as process:
        while process.poll() is None:
            try:
                seen.add((tmp_path / "disk.imgtk-part").stat().st_mode & 0o777)
            except FileNotFoundError:
                pass
    assert process.returncode == 0 and seen <= {0o600}
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize("kind", ["device", "fifo", "folder", "fd:7", "null:", "file:"])
def test_only_a_file_is_resumed(source, tmp_path, kind, confined):
    """Above all, no file takes the place of a device, where there is no Landlock to prevent it either."""
    target = tmp_path / "disk"
    if kind == "device":
        try:
            os.mknod(target, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
        except PermissionError:
            missing("cannot make a device node")
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    name = kind if kind in ("fd:7", "null:") else f"file:{target}" if kind == "file:" else target
    before = os.lstat(target) if target.exists() else None
    without = [] if confined else [sys.executable, Path(__file__).parent / "without_landlock.py"]
    result = execute([*without, IMGTK, "convert", "-f", "qcow2", "-O", "raw", "--resume", source, name], code=None,
                     cwd=tmp_path)
    if kind == "file:":
        assert result.code == 0 and os.listdir(tmp_path) == ["disk"], result
        return
    assert result.code == 1 and len(result.err.splitlines()) == 1, result
    reason = "Is a directory" if kind == "folder" else "--resume is for uncompressed conversions into a new file"
    assert reason in result.err
    assert os.listdir(tmp_path) == (["disk"] if before else [])
    assert not before or os.lstat(target).st_mode == before.st_mode

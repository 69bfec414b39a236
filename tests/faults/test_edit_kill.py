"""A process that dies at any write while it changes an image in place: the disk is the old one or the new one."""
import json
import shutil
import struct

import pytest
import vhdx_images as vhdx
from imgtk_test import KIB, MIB, environment, imgtk, make_image, make_raw, qemu_img, qemu_io

pytestmark = pytest.mark.unsanitized  # a sanitizer must be the first library
WRITES = "pwrite,fsync,ftruncate,fallocate"
LAYOUTS = {"plain": "", "tiny": "cluster_size=512,refcount_bits=64", "v2": "compat=0.10",
           "subclusters": "extended_l2=on,cluster_size=16k"}


class Victim:
    """A folder of images, a command that changes one of them, and what the disk is before and after."""

    def __init__(self, shim, folder, make, *words):
        self.shim, self.folder, self.words = shim, folder, words
        self.start, self.work, self.log = folder / "start", folder / "work", folder / "log"
        self.start.mkdir()
        make(self.start)
        assert self.run(0).code == 0
        self.count = len(self.log.read_text())
        self.after = self.disk()
        self.renew()
        self.before = self.disk()

    def renew(self):
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.start, self.work)

    def run(self, at, **faults):
        self.renew()
        return self.again(at, **faults)

    def again(self, at=0, **faults):
        self.log.unlink(missing_ok=True)
        env = environment(LD_PRELOAD=self.shim, FAULT_LOG=self.log, FAULT_AT=at, FAULT_CALLS=WRITES, **faults)
        return imgtk(*self.words, code=None, cwd=self.work, env=env)

    def disk(self, name="image"):
        """The SHA-256 of the bytes of a disk in the working folder."""
        return imgtk("checksum", "--flat", self.work / name).out.split()[0]

    def assert_sound(self, leaks=(0, 3)):
        for path in self.work.iterdir():
            if path.read_bytes()[:4] == b"QFI\xfb":
                assert qemu_img("check", "-f", "qcow2", path, code=None).code in leaks, self.log.read_text()
                assert imgtk("check", path, code=None).code in leaks, self.log.read_text()

    def assert_old_or_new(self):
        self.assert_sound()
        assert self.disk() in (self.before, self.after), self.log.read_text()

    def kill_everywhere(self, how):
        for at in range(1, self.count + 1):
            assert self.run(at, FAULT_KILL=how).code == -9, at
            self.assert_old_or_new()
        return self

    def fail_everywhere(self):
        """The same when a call fails. Nothing is left behind but where the header's write, or its flush, did."""
        sizes = {path.name: path.stat().st_size for path in self.start.iterdir()}
        left = []
        for at in range(1, self.count + 1):
            result = self.run(at, FAULT_ERRNO=5)
            if "ftruncate" in self.log.read_text() and result.code == 0:
                assert self.disk() == self.after  # a file that stays longer than it need be
            else:
                assert result.code == 1 and len(result.err.splitlines()) == 1, result
            self.assert_sound((0,))
            if self.disk() != self.after:
                assert self.disk() == self.before
                left += [at] if {path.name: path.stat().st_size for path in self.work.iterdir()} != sizes else []
        assert len(left) <= 2, left


def make_used(folder, layout, snapshot=True):
    image = make_image(folder / "image", MIB, options=LAYOUTS[layout],
                       writes=["write -P 1 0 300k", "write -P 2 900k 60k"])
    if snapshot:
        qemu_img("snapshot", "-c", "s", image)
        qemu_io(image, "write -P 3 100k 100k", "write -P 4 500k 64k", fmt="qcow2")


@pytest.mark.parametrize("how, layout", [("before", "subclusters"), ("half", "plain")])
@pytest.mark.parametrize("words", [("snapshot", "-c", "t"), ("snapshot", "-a", "s"), ("snapshot", "-d", "s"),
                                   ("resize", "--shrink"), ("resize", "--shrink", "-q"),
                                   ("resize", "--preallocation=falloc")], ids=" ".join)
def test_snapshots_and_sizes(shim, tmp_path, words, layout, how):
    size = {("resize", "--shrink"): ["200k"], ("resize", "--shrink", "-q"): ["9G"],
            ("resize", "--preallocation=falloc"): ["1300k"]}.get(words, [])
    Victim(shim, tmp_path, lambda folder: make_used(folder, layout), *words, "image", *size).kill_everywhere(how)


def make_stack(folder, layout):
    make_image(folder / "old", MIB, options=LAYOUTS[layout], writes=["write -P 1 0 500k"])
    qemu_img("snapshot", "-c", "s", folder / "old")
    make_raw(folder / "new", MIB, [(0, b"\1" * 200 * KIB), (700 * KIB, b"\7" * 100 * KIB)])
    if layout == "plain":
        qemu_img("bitmap", "--add", folder / "old", "b")
    size = MIB if layout == "v2" else MIB + 128 * KIB  # version 2 does not resize disks that have snapshots
    make_image(folder / "image", size, options=LAYOUTS[layout], backing="old", backing_fmt="qcow2",
               writes=["write -P 4 100k 100k", "write -P 5 1000k 8k"])


@pytest.mark.parametrize("layout", ["plain", "v2"])
def test_rebase(shim, tmp_path, layout):
    victim = Victim(shim, tmp_path, lambda folder: make_stack(folder, layout), "rebase", "-b", "new", "-F", "raw",
                    "image")
    victim.kill_everywhere("before")
    victim.run(victim.count - 1, FAULT_KILL="before")
    assert victim.again().code == 0
    victim.assert_sound((0,))


@pytest.mark.parametrize("layout", ["plain", "v2", "subclusters"])
def test_commit(shim, tmp_path, layout):
    """Through the overlay the disk is the same all the time; the same command once more completes it."""
    victim = Victim(shim, tmp_path, lambda folder: make_stack(folder, layout), "commit", "image")
    for at in range(1, victim.count + 1):
        assert victim.run(at, FAULT_KILL="before").code == -9
        victim.assert_old_or_new()
        if at % 6 == 0:
            assert victim.again().code == 0
            victim.assert_sound((0,))
            assert victim.disk() == victim.disk("old") == victim.before


def forget_snapshots(folder, layout):
    """As if whoever deleted the snapshot had died half-way: everything is counted twice, and nothing flagged."""
    make_used(folder, layout)
    with open(folder / "image", "r+b") as file:
        file.seek(60)
        file.write(bytes(12))
    assert qemu_img("check", folder / "image", code=3)


@pytest.mark.parametrize("repair, layout, how", [("leaks", "plain", "before"), ("all", "plain", "half"),
                                                 ("leaks", "subclusters", "half")])
def test_repair_of_leaks(shim, tmp_path, layout, repair, how):
    """A leak never becomes something worse."""
    words = ["check", "-q", "-r", repair, "image"]
    victim = Victim(shim, tmp_path, lambda folder: forget_snapshots(folder, layout), *words).kill_everywhere(how)
    victim.run(0)
    victim.assert_sound((0,))


def make_logged(folder, layout):
    """A VHDX whose log was not replayed: a block is in its table in the log alone."""
    image = vhdx.Image(2 * MIB)
    image.put(0, b"a" * MIB)
    path = image.write(folder / "image")
    end, place = image.end, image.place(MIB)
    entry = vhdx.read_at(path, vhdx.BAT_OFFSET, 8) + struct.pack("<Q", place | vhdx.FULLY)
    vhdx.put_log(path, 0, [vhdx.log_entry(1, 0, [(vhdx.BAT_OFFSET, entry.ljust(4096, b"\0")), (place, b"b" * 4096),
                                                 (place + 4096, 8192)], flushed=end, last=image.end)])


@pytest.mark.parametrize("how", ["before", "half"])
def test_replay_of_a_log(shim, tmp_path, how):
    """Whenever it ends, the log is still there, or all that it says is in the file."""
    victim = Victim(shim, tmp_path, lambda folder: make_logged(folder, None), "check", "-q", "-r", "all", "image")
    for at in range(1, victim.count + 1):
        assert victim.run(at, FAULT_KILL=how).code == -9, at
        assert victim.disk() == victim.before, at
        assert imgtk("check", "-q", "-r", "all", victim.work / "image").code == 0
        assert victim.disk() == victim.before, at
        assert qemu_img("check", "-f", "vhdx", victim.work / "image").code == 0


def make_longer(folder, fmt):
    """An image whose last blocks nothing names: what is behind its end, before a footer, is a piece of a larger one."""
    words = ["-o", "block_size=1M"] if fmt == "vhdx" else []
    imgtk("convert", "-O", fmt, *words, make_raw(folder / "raw", 6 * MIB, [(0, b"a" * MIB), (4 * MIB, b"b" * MIB)]),
          folder / "image")
    (folder / "raw").unlink()
    footer = 512 if fmt == "vpc" else 0
    data = (folder / "image").read_bytes()
    (folder / "image").write_bytes(data[:len(data) - footer] + bytes(5 * MIB) + data[len(data) - footer:])


@pytest.mark.parametrize("how", ["before", "half"])
@pytest.mark.parametrize("fmt", ["vdi", "vpc", "vhdx", "vmdk"])
def test_cutting_off_leaks(shim, tmp_path, fmt, how):
    """The file is as long as it was, or as long as it has to be; in both it opens, and has no fault but leaks."""
    victim = Victim(shim, tmp_path, lambda folder: make_longer(folder, fmt), "check", "-q", "-r", "leaks", "image")
    sizes = set()
    for at in range(1, victim.count + 1):
        assert victim.run(at, FAULT_KILL=how).code == -9, at
        assert victim.disk() == victim.before == victim.after, at
        assert imgtk("check", victim.work / "image", code=None).code in (0, 3), at
        assert qemu_img("compare", "-f", fmt, "-F", fmt, victim.start / "image", victim.work / "image").code == 0
        sizes.add((victim.work / "image").stat().st_size)
        assert victim.again().code == 0
        assert imgtk("check", victim.work / "image").err == ""
    start = (victim.start / "image").stat().st_size
    shorter = (victim.work / "image").stat().st_size
    assert start - 6 * MIB < shorter < start - 3 * MIB
    assert sizes == {start, shorter} or how == "half" and sizes == {shorter}  # half of the only write is all of it


def make_damaged(folder, places):
    """A VHDX with a damaged copy of a header, or of the region table, or one of each."""
    image = vhdx.Image(2 * MIB)
    image.put(1, b"a" * MIB)
    path = image.write(folder / "image")
    for place in places:
        vhdx.patch(path, place + 100, b"?")


@pytest.mark.parametrize("how", ["before", "half"])
@pytest.mark.parametrize("places", [vhdx.HEADER_OFFSETS[:1], vhdx.HEADER_OFFSETS[1:], vhdx.REGION_OFFSETS[:1],
                                    vhdx.REGION_OFFSETS[1:], (vhdx.HEADER_OFFSETS[0], vhdx.REGION_OFFSETS[1])])
def test_repair_of_copies(shim, tmp_path, places, how):
    """Of each pair a good one is left, so that the image opens, has no more faults than before, and can be repaired."""
    victim = Victim(shim, tmp_path, lambda folder: make_damaged(folder, places), "check", "-q", "-r", "all", "image")
    faults = []
    for at in range(1, victim.count + 1):
        assert victim.run(at, FAULT_KILL=how).code == -9, at
        assert victim.disk() == victim.before, at
        if vhdx.REGION_OFFSETS[0] not in places:  # QEMU reads no other region table
            assert qemu_img("check", "-f", "vhdx", victim.work / "image").code == 0
        found = json.loads(imgtk("check", "--output=json", victim.work / "image", code=None).out)
        faults.append(found.get("corruptions", 0))
        assert victim.again().code == 0
        assert imgtk("check", victim.work / "image").err == "" and victim.disk() == victim.before
    assert max(faults) <= len(places) and (faults[0] == len(places) or how == "half"), faults


def test_calls_that_fail(shim, tmp_path):
    for number, words in enumerate([("snapshot", "-d", "s", "image"), ("resize", "--shrink", "image", "200k")]):
        (tmp_path / str(number)).mkdir()
        Victim(shim, tmp_path / str(number), lambda folder: make_used(folder, "plain"), *words).fail_everywhere()


def test_failed_rebase(shim, tmp_path):
    Victim(shim, tmp_path, lambda folder: make_stack(folder, "plain"), "rebase", "-b", "", "image").fail_everywhere()

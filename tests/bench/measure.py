"""Running a row: imgtk and its best peer in turn, pair by pair."""
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from inputs import ENV, qemu_img

TOUCH_FROM = 256 << 20  # outputs below this do not depend on where their pages come from

# In a process of its own, whose memory is free again at once.
TOUCH = """
import mmap, sys
with mmap.mmap(-1, int(sys.argv[1])) as memory:
    memory.madvise(23)  # MADV_POPULATE_WRITE
"""


@dataclass
class Result:
    """What a row came to. Ratios are peer/imgtk, one per pair; sizes those of imgtk's and the peer's file."""
    best: str
    ratios: list
    seconds: float
    cpu_ratio: float
    peak: int
    sizes: tuple

    @property
    def ratio(self):
        return statistics.median(self.ratios)


def settle(size):
    """
    Writes what is dirty, and touches free memory for an output of `size` bytes: the host of a virtual machine takes
    back what is free, and whoever happens to use it first would pay for getting it again.
    """
    os.sync()
    if size < TOUCH_FROM:
        return
    subprocess.run([sys.executable, "-c", TOUCH, str(size + size // 4)], check=False)


def warm(command, inputs):
    """Of the inputs, only what the command reads is in the page cache: all of them together may not fit."""
    for path in inputs:
        with open(path, "rb", buffering=0) as file:
            if str(path) not in command:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                continue
            at = 0
            while (at := next_data(file, at)) is not None:
                at += len(os.pread(file.fileno(), 1 << 20, at)) or 1


def next_data(file, at):
    try:
        return os.lseek(file.fileno(), at, os.SEEK_DATA)
    except OSError:
        return None


def run_once(command, out, folder, size=0, keep=False):
    """Seconds and CPU seconds of one run. An output that goes at once never has to be brought to the disk."""
    words = [word.replace("{out}", str(out)).replace("{in}", str(folder)) for word in command.split()]
    out.unlink(missing_ok=True)
    settle(size)
    start = time.perf_counter()
    with subprocess.Popen(words, env=ENV, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if not keep:
        out.unlink(missing_ok=True)
    if process.returncode:
        sys.exit(f"{command}: exit {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def run_weighed(command, out, folder):
    """
    The same, the output kept, and peak memory (KiB). What a process is said to have needed begins with what its parent
    held when it was started, so the parent is time(1), which is small.
    """
    weight = folder / "peak"
    used = run_once(f"/usr/bin/time --format %M --output {weight} {command}", out, folder, keep=True)
    peak = int(weight.read_text())
    weight.unlink()
    return used, peak


def file_size(path):
    return path.stat().st_size if path.exists() else 0


def occupied(path):
    return path.stat().st_blocks * 512 if path.exists() else 0


def installed(row):
    """Those of a row's peers that are installed."""
    return [peer for peer in row.peers if shutil.which(peer.split()[0])]


def all_peers(row, newer):
    """Those that are installed; `newer`: other builds of qemu-img that run too, as the last qemu-img of the row does."""
    same = [peer for peer in row.peers if peer.startswith("qemu-img")][-1:]
    return installed(row) + [peer.replace("qemu-img", path, 1) for path in newer for peer in same]


def run_pairs(pairs, ours, theirs, folder, size):
    """Each is a command and its output. Who begins changes from pair to pair."""
    mine, peer = [], []
    for pair in range(pairs):
        turns = [(mine, *ours), (peer, *theirs)]
        for runs, command, out in turns if pair % 2 == 0 else reversed(turns):
            runs.append(run_once(command, out, folder, size))
    return mine, peer


def measure(row, pairs, folder, inputs, newer=()):
    """`folder` holds the outputs, and the inputs of rows that say {in}."""
    warm(row.mine, inputs)
    mine_out, peer_out = folder / "mine.out", folder / "peer.out"
    peers = all_peers(row, newer)
    best = min(peers, key=lambda peer: run_once(peer, peer_out, folder)[0]) if pairs > 1 else peers[0]
    peer = [run_once(best, peer_out, folder, keep=True)]
    used, peak = run_weighed(row.mine, mine_out, folder)
    mine = [used]
    if row.form:
        qemu_img("compare", "-f", row.form, "-F", row.form, mine_out, peer_out)
    sizes, size = (file_size(mine_out), file_size(peer_out)), occupied(peer_out)
    mine_out.unlink(missing_ok=True)
    peer_out.unlink(missing_ok=True)
    if pairs > 1:  # else the warm-up is all there is
        mine, peer = run_pairs(pairs, (row.mine, mine_out), (best, peer_out), folder, size)
    ratios = [theirs[0] / ours[0] for ours, theirs in zip(mine, peer)]
    cpu = statistics.median(theirs[1] / max(ours[1], 1e-6) for ours, theirs in zip(mine, peer))
    return Result(best, ratios, statistics.median(run[0] for run in mine), cpu, peak, sizes)


class Mounted:
    """A file system of a kind on a loop device, with a copy of one input; a context manager that gives its folder."""

    def __init__(self, kind, source, folder):
        self.kind, self.source = kind, source
        self.disk, self.folder = folder / f"{kind}.disk", folder / f"{kind}.mounted"

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        with open(self.disk, "wb") as file:
            file.truncate((self.source.stat().st_blocks * 512 << 1) + (2 << 30))
        for command in ([f"/sbin/mkfs.{self.kind}", "-q", self.disk], ["mount", "-o", "loop", self.disk, self.folder],
                        ["cp", "--sparse=always", self.source, self.folder]):
            subprocess.run([str(word) for word in command], check=True, stderr=subprocess.DEVNULL)
        os.sync()
        return self.folder

    def __exit__(self, *_):
        subprocess.run(["umount", str(self.folder)], check=True)
        self.folder.rmdir()
        Path(self.disk).unlink()


class Served:
    """nbdkit's servers on sockets in a folder; a context manager that gives the folder.

    `file` and `memory` hold the disk, `target` (a file) and `empty` (memory) are as large, and `sparse` is mostly a hole.
    """

    def __init__(self, source, sparse, folder):
        self.source, self.folder = source, folder / "served"
        size = source.stat().st_size
        self.target = self.folder / "target.raw"
        self.plugins = {"file": ["file", source], "memory": ["memory", size], "empty": ["memory", size],
                        "target": ["file", self.target], "sparse": ["file", sparse]}
        self.servers = []

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        with open(self.target, "wb") as file:
            file.truncate(self.source.stat().st_size)
        for name, plugin in self.plugins.items():
            self.start(self.folder / name, [str(word) for word in plugin])
        subprocess.run(["nbdcopy", str(self.source), f"nbd+unix:///?socket={self.folder / 'memory'}"], check=True)
        return self.folder

    def start(self, socket, plugin):
        socket.unlink(missing_ok=True)
        self.servers.append(subprocess.Popen(["nbdkit", "-f", "-U", str(socket), *plugin]))
        while not socket.exists():
            if self.servers[-1].poll() is not None:
                sys.exit(f"nbdkit {' '.join(plugin)}: exit {self.servers[-1].returncode}")
            time.sleep(0.01)

    def __exit__(self, *_):
        for server in self.servers:
            server.terminate()
            server.wait()
        shutil.rmtree(self.folder)

"""The images that are measured, made by qemu-img where it can and kept for the next run."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMGTK = Path(os.environ.get("IMGTK", ROOT / "build-release/bin/imgtk")).resolve()
QUICK_TREE = ["/usr/include", "/usr/lib/python3"]
TREE = ["/usr/bin", "/usr/share", "/usr/include", "/usr/lib/python3"]

ENV = dict(os.environ, LC_ALL="C", IMGTK_CONFIG=str(ROOT / "tests/empty.yaml"))
ENV.setdefault("IMGTK_MODULE_PATH", str(IMGTK.parents[1] / "modules"))
ENV.setdefault("IMGTK", str(IMGTK))


def shell(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, env=ENV, **options)


def qemu_img(*words):
    shell("qemu-img", *words, stdout=subprocess.DEVNULL)


def qemu_io(path, commands):
    subprocess.run(["qemu-io", "-t", "unsafe", str(path)], input=("\n".join(commands) + "\nquit\n").encode(),
                   stdout=subprocess.DEVNULL, check=True)


def os_image(path, size_gib, quick):
    """An ext4 file system of this machine's installed packages."""
    tree = path.parent / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for folder in QUICK_TREE if quick else TREE:
        if Path(folder).exists():
            place = tree / folder.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shell("cp", "-a", folder, place)
    with open(path, "wb") as file:
        file.truncate(int(size_gib * (1 << 30)))
    shell("/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree, path)
    shutil.rmtree(tree)


def fragmented(path, cluster_size, extents):
    """A qcow2 whose every second cluster is in use."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_size}", path, extents * 2 * cluster_size)
    qemu_io(path, [f"write -q -P 1 {at * 2 * cluster_size} {cluster_size}" for at in range(extents)])


def overlay(path, base):
    """1 TiB over the OS image, with a few clusters of its own."""
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path, "1T")
    qemu_io(path, [f"write -q -P 2 {at << 34} 64k" for at in range(1, 60)])


def chain(path, base, depth):
    """`depth` overlays, each with some clusters of its own; the top one is `path`."""
    for layer in range(depth):
        name = path if layer == depth - 1 else path.with_name(f"{path.stem}-{layer}.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", name)
        qemu_io(name, [f"write -q -P {layer + 1} {(layer * 97 + at * 1009) % 2000 << 18} 64k" for at in range(40)])
        base = name


def sparse(path):
    """1 TiB with 64 KiB of data in every 16 GiB."""
    with open(path, "wb") as file:
        file.truncate(1 << 40)
        for at in range(0, 1 << 40, 16 << 30):
            os.pwrite(file.fileno(), os.urandom(64 << 10), at)


def metadata(path, size):
    """Tables for every cluster. The file is as long as the disk, which ext4 allows up to 16 TiB."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, size)


def recipes(folder, size_gib, quick):
    """How each input is made; the names are those of files in `folder`."""
    raw = folder / "os.raw"

    def converted(*words):
        return lambda at: qemu_img("convert", *words, raw, at)

    made = {
        "os.raw": lambda at: os_image(at, size_gib, quick),
        "plain.qcow2": converted("-O", "qcow2"),
        "zlib.qcow2": converted("-c", "-W", "-m", "16", "-O", "qcow2"),
        "zstd.qcow2": converted("-c", "-W", "-m", "16", "-O", "qcow2", "-o", "compression_type=zstd"),
        "stream.vmdk": converted("-W", "-m", "16", "-O", "vmdk", "-o", "subformat=streamOptimized"),
        "sparse.vmdk": converted("-O", "vmdk"),
        "dynamic.vhd": converted("-O", "vpc", "-o", "force_size=on"),
        "dynamic.vhdx": converted("-O", "vhdx"),
        "dynamic.vdi": converted("-O", "vdi"),
        "empty1t.qcow2": lambda at: qemu_img("create", "-q", "-f", "qcow2", at, "1T"),
        "empty16t.qcow2": lambda at: qemu_img("create", "-q", "-f", "qcow2", at, "16T"),
        "metadata1t.qcow2": lambda at: metadata(at, "64G" if quick else "1T"),
        "metadata15t.qcow2": lambda at: metadata(at, "128G" if quick else "15T"),
        "fragmented4k.qcow2": lambda at: fragmented(at, 4096, 5_000 if quick else 1_000_000),
        "fragmented64k.qcow2": lambda at: fragmented(at, 65536, 500 if quick else 10_000),
        "overlay.qcow2": lambda at: overlay(at, folder / "plain.qcow2"),
        "chain.qcow2": lambda at: chain(at, folder / "plain.qcow2", 5 if quick else 50),
        "sparse1t.raw": sparse,
        "small.qcow2": lambda at: qemu_img("convert", "-O", "qcow2", ROOT / "tests/fixtures/debian.qcow2", at),
    }
    return made


def build_inputs(folder, size_gib, quick):
    """Makes every input that is not there yet; a dict of paths."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {}
    for name, make in recipes(folder, size_gib, quick).items():
        inputs[name] = folder / name
        if not inputs[name].exists():
            print(f"making {name}", file=sys.stderr, flush=True)
            try:
                make(inputs[name])
            except BaseException:
                inputs[name].unlink(missing_ok=True)
                raise
    return inputs

"""Images to draw: small ones that have everything which a picture can show."""
import random

from imgtk_test import FIXTURES, KIB, MIB, TIB, imgtk, make_image, make_raw
from partition_tables import EFI_SYSTEM, LINUX, SWAP, gpt


def make_sample(folder):
    """The image of docs/pictures.md: the Debian fixture in a partition, compressed, and an overlay. In `folder`."""
    base, system, choice = folder / "system.qcow2", folder / "system.raw", random.Random(5)
    imgtk("convert", "-f", "qcow2", "-O", "raw", FIXTURES / "debian.qcow2", folder / "debian.raw")
    sectors = [MIB // 512 * edge for edge in (1, 3, 14)] + [17 * MIB // 512 - 2048]
    kinds = [(EFI_SYSTEM, "boot"), (LINUX, "system"), (SWAP, "")]
    partitions = [(kind, first, last - 1, name) for (kind, name), first, last in zip(kinds, sectors, sectors[1:])]
    make_raw(system, 17 * MIB, [*gpt(17 * MIB, partitions), (MIB, b"boot" * 80 * KIB),
                                (3 * MIB, (folder / "debian.raw").read_bytes())])
    imgtk("convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", system, base)
    writes = [f"write {4 * MIB + choice.randrange(2000) * 4 * KIB} {choice.choice([4, 12, 60, 150])}k"
              for _ in range(40)]
    make_image(folder / "disk.qcow2", None, backing="system.qcow2", backing_fmt="qcow2", options="cluster_size=4k",
               writes=[*writes, "write 14M 700k", "write -z 5M 900k"])
    return folder / "disk.qcow2"


def make_all(folder):
    """Several images, as paths: the sample, a chain deeper than there are colours, a tiny, an empty and a huge one."""
    paths = [make_sample(folder)]
    below = "system.qcow2"
    for depth in range(9):
        name = f"layer{depth}.qcow2"
        make_image(folder / name, None, backing=below, backing_fmt="qcow2", writes=[f"write {3 + depth}M 300k"])
        below = name
    paths.append(folder / below)
    paths.append(make_raw(folder / "tiny.raw", 200 * KIB, [(0, b"x" * 100 * KIB)]))
    paths.append(make_raw(folder / "empty.raw", 0))
    paths.append(make_image(folder / "huge.qcow2", 16 * TIB))
    return paths

#!/usr/bin/python3
"""imgtk-conformance: whether a format module keeps what imgtk's core expects of it.

  imgtk-conformance [-o OPTIONS] FORMAT                  on images that the module writes itself
  imgtk-conformance [-o OPTIONS] FORMAT IMAGE CONTENT    on an image whose disk holds the bytes of the file CONTENT

IMGTK_MODULE_PATH names the folder of the module. OPTIONS are those for writing an image, as for `imgtk convert -o`, that
make the same disk the same file each time. The exit code is 0 when all cases pass.

With IMAGE, new files are made in the current folder, which should be an empty one: beside files that IMAGE refers to.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
PREFIX = Path(__file__).resolve().parent.parent
PROGRAM, SUITE = PREFIX / "bin/imgtk", PREFIX / "libexec/imgtk/conformance"


def pieces_of_everything(size):
    """Data of every kind, zeroes that are written, holes, single bytes at block ends: as (offset, bytes), for 5 MiB."""
    rng = random.Random(1)
    words = [rng.randbytes(rng.randint(3, 12)) for _ in range(200)]
    text = b"".join(rng.choice(words) for _ in range(60000))
    pieces = [(0, text[:100 * KIB]), (100 * KIB + 17, rng.randbytes(70000)), (256 * KIB, bytes(128 * KIB)),
              (MIB - 1, b"ab"), (MIB + 64 * KIB, text[:300 * KIB]), (2 * MIB, rng.randbytes(MIB)),
              (2 * MIB + 4 * KIB, bytes(4 * KIB)), (4 * MIB - 512, b"z" * 512), (size - 1, b"e")]
    return pieces + [(4 * MIB + n * 64 * KIB, bytes([n + 1]) * 512) for n in range(0, 12, 3)]


def disks():
    """What is written and read back: a name, a size and pieces."""
    yield "a disk of everything", 5 * MIB + 3 * 512, pieces_of_everything(5 * MIB + 3 * 512)
    yield "an empty disk", MIB, []
    yield "a disk of one sector", 512, [(0, b"s" * 512)]


def write_content(path, size, pieces):
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def run(words, folder):
    """Whether a command succeeded; what it printed is shown when it did not."""
    env = dict(os.environ)
    env.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    if "IMGTK_MODULE_PATH" in env:  # seen from here, not from that folder
        env["IMGTK_MODULE_PATH"] = ":".join(map(os.path.abspath, env["IMGTK_MODULE_PATH"].split(":")))
    done = subprocess.run(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout.decode("utf-8", "replace"))
    return done.returncode == 0


def check_image(arguments, image, content, folder):
    options = ["-o", arguments.options] if arguments.options else []
    return run([SUITE, arguments.format, image, content, *options], folder)


def check_written(arguments, name, size, pieces):
    options = ["-o", arguments.options] if arguments.options else []
    with tempfile.TemporaryDirectory(prefix="imgtk-conformance-") as folder:
        write_content(Path(folder, "content.raw"), size, pieces)
        passed = (run([PROGRAM, "convert", "-f", "raw", "-O", arguments.format, *options, "content.raw", "disk.image"],
                      folder)
                  and check_image(arguments, "disk.image", "content.raw", folder))
    print(f"{arguments.format}, {name}: {'passed' if passed else 'FAILED'}", flush=True)
    return passed


def can_write(arguments):
    """Told once: each of the disks would fail for the same reason."""
    return run([PROGRAM, "create", "-f", arguments.format, "-o", "help"], ".")


def main():
    parser = argparse.ArgumentParser(
        prog="imgtk-conformance", usage="imgtk-conformance [-o OPTIONS] FORMAT [IMAGE CONTENT]",
        description="Tests whether a format module keeps what imgtk expects of it: on images that the module writes, or "
        "on IMAGE, whose disk holds the bytes of the file CONTENT; new files are then made in the current folder.",
        epilog="IMGTK_MODULE_PATH names the folder of a module that is not installed. Exit codes: 0 all cases passed, "
        "1 one failed, 2 wrong usage. See imgtk-conformance(1).")
    parser.add_argument("-o", dest="options", metavar="OPTIONS",
                        help="for writing an image, as for 'imgtk convert -o': those that make the same disk the same file")
    parser.add_argument("format", metavar="FORMAT", help="the name of the module")
    parser.add_argument("files", nargs="*", metavar="IMAGE CONTENT", help="an image, and a raw file with its disk's bytes")
    arguments = parser.parse_args()
    if len(arguments.files) not in (0, 2):
        parser.error("give IMAGE and CONTENT, or neither")
    if arguments.files:
        passed = check_image(arguments, *arguments.files, ".")
        print(f"{arguments.format}, {arguments.files[0]}: {'passed' if passed else 'FAILED'}")
        return 0 if passed else 1
    if not can_write(arguments):
        return 1
    results = [check_written(arguments, *disk) for disk in disks()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""Makes the seeds and the dictionaries of the fuzz targets from small images of every kind.

  tests/fuzz/make_corpus.py FOLDER      fills FOLDER/corpus/TARGET and FOLDER/TARGET.dict

The images come from qemu-img and from the builders that the other tests use for what qemu-img cannot make.
"""
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

import build_vdi  # noqa: E402
import build_vhd  # noqa: E402
import partition_tables as tables  # noqa: E402
import vhdx_images as vhdx  # noqa: E402
import vmdk_build  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
SEALED, PLAIN_LIMIT = 1, 16 * KIB
FORMATS = ("qcow2", "vmdk", "vpc", "vhdx", "vdi")

MAGICS = {
    "qcow2": [b"QFI\xfb", b"\xe2\x79\x2a\xca", b"\x68\x03\xf8\x57", b"\x23\x85\x28\x75", b"DATA", b"raw", b"qcow2",
              b"\x80\0\0\0\0\0\0\0", b"\x40\0\0\0\0\0\0\0", b"\xc0\0\0\0\0\0\0\0"],
    "vmdk": [b"KDMV", b"COWD", b"\xbe\xba\xfe\xca\0\0\0\0", b"\xfe\xca\xfe\xca\0\0\0\0", b"# Disk DescriptorFile", b"CID=",
             b"parentCID=ffffffff", b"createType=", b"parentFileNameHint=", b"RW ", b"RDONLY ", b"NOACCESS ", b" SPARSE ",
             b" FLAT ", b" ZERO", b" VMFS ", b" VMFSSPARSE ", b" SESPARSE ", b'"', b"\n", b"ddb.",
             b"monolithicSparse", b"streamOptimized", b"\xff" * 8],
    "vpc": [b"conectix", b"cxsparse", b"win ", b"qemu", b"vpc ", b"tap\0", b"W2ru", b"W2ku", b"MacX", b"\xff" * 4, b"\xff" * 8],
    "vhdx": [b"vhdxfile", b"head", b"regi", b"loge", b"desc", b"zero", b"data", b"metadata", vhdx.BAT_REGION.bytes_le,
             vhdx.METADATA_REGION.bytes_le, vhdx.FILE_PARAMETERS.bytes_le, vhdx.DISK_SIZE.bytes_le,
             vhdx.DISK_ID.bytes_le, vhdx.LOGICAL_SECTOR.bytes_le, vhdx.PHYSICAL_SECTOR.bytes_le,
             vhdx.PARENT_LOCATOR.bytes_le, vhdx.LOCATOR_TYPE.bytes_le, "parent_linkage".encode("utf-16-le"),
             "relative_path".encode("utf-16-le"), vhdx.LOG_GUID.bytes_le],
    "vdi": [b"<<< Oracle VM VirtualBox Disk Image >>>\n", b"\x7f\x10\xda\xbe", b"\xff" * 4, b"\xfe\xff\xff\xff",
            b"\x01\0\x01\0"],
    "config": [b"module_dirs:", b"disabled_modules:", b"references:", b"allow_dirs:", b"format_options:", b"workers:",
               b"beneath", b"any", b"none", b"- ", b"{", b"}", b"[", b"]", b"&a", b"*a", b"!!", b"---", b"\n  ", b"null"],
    "opts": [b"compat6", b"backing_file=", b"cluster_size=", b"connections=", b"preallocation=", b",,", b"on", b"off",
             b"0x", b"64k", b"1.5G", b"falloc", b"9223372036854775807"],
    "partitions": [b"EFI PART", b"\0\0\1\0", b"\x5c\0\0\0", b"\x80\0\0\0", b"\x55\xaa", b"\xee", b"\x05", b"\x0f", b"\x83",
                   b"\xff" * 8],
    "codec": [b"\x28\xb5\x2f\xfd", b"\x78\x9c", b"\x78\xda", b"\x50\x2a\x4d\x18"],
}


def run(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def pack(data, flags=SEALED):
    """The packed form of an image (see image.h): its runs of bytes that are not zero."""
    out = [b"imgtkPCS", struct.pack("<BI", flags, len(data))]
    at = 0
    while at < len(data):
        if not any(data[at:at + 512]):
            at += 512
            continue
        end = at
        while end < len(data) and end - at < 32 * KIB and any(data[end:end + 512]):
            end += 512
        piece = data[at:end].rstrip(b"\0")
        out.append(struct.pack("<IH", at, len(piece)) + piece)
        at = end
    return b"".join(out)


def as_input(data):
    return data if len(data) <= PLAIN_LIMIT else pack(data)


# ---- Images ---------------------------------------------------------------------------------------------------------

def make_raw(folder):
    """64 KiB: text, zeroes, a little noise."""
    data = bytearray(64 * KIB)
    data[:600] = b"imgtk " * 100
    data[20 * KIB:20 * KIB + 512] = bytes(range(256)) * 2
    data[-1] = 7
    path = folder / "source.raw"
    path.write_bytes(data)
    return path


def make_qcow2(folder, raw):
    kinds = {"plain": "cluster_size=512", "v2": "compat=0.10,cluster_size=512", "extended": "extended_l2=on,cluster_size=16k",
             "bits1": "cluster_size=1k,refcount_bits=1", "bits64": "cluster_size=1k,refcount_bits=64",
             "metadata": "cluster_size=4k,preallocation=metadata"}
    for name, options in kinds.items():
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, folder / f"{name}.qcow2")
    for kind in ("zlib", "zstd"):
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"cluster_size=4k,compression_type={kind}", raw,
            folder / f"{kind}.qcow2")
    full = folder / "full.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", raw, full)
    run("qemu-img", "snapshot", "-c", "first", full)
    run("qemu-io", "-c", "write -z 0 4k", "-c", "write -P 3 8k 1k", full)
    run("qemu-img", "snapshot", "-c", "second", full)
    run("qemu-img", "bitmap", "--add", "-g", "512", full, "changes")
    run("qemu-io", "-c", "write -P 4 2k 1k", full)
    run("qemu-img", "rebase", "-u", "-b", "base.raw", "-F", "raw", full)


def make_vmdk(folder, raw):
    for kind in ("monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse", "monolithicFlat"):
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", raw, folder / f"{kind}.vmdk")
    vmdk_build.write_cowd(folder / "cowd.vmdk", 128, {0: b"a" * 512, 9: b"b" * 512})
    vmdk_build.write_sesparse(folder / "sesparse.vmdk", 128, {0: b"a" * 4096, 3: vmdk_build.ZERO, 5: vmdk_build.UNMAPPED})
    lines = ['RW 64 FLAT "a-flat.vmdk" 0', "RW 32 ZERO", 'RW 128 VMFSSPARSE "b.vmdk"', 'RDONLY 128 SESPARSE "c.vmdk"']
    vmdk_build.write_descriptor(folder / "lines.vmdk", lines, parent="base.vmdk", parent_cid=7)


def make_vpc(folder):
    text = b"data" * 128
    build_vhd.build(folder / "dynamic.vpc", 64 * KIB, [(0, text), (40 * KIB, text)], block_size=4 * KIB)
    build_vhd.build(folder / "differencing.vpc", 64 * KIB, [(512, text)], kind=build_vhd.DIFFERENCING, block_size=4 * KIB,
                    parent_uuid=build_vhd.uuids.UUID(int=5), parent_name="base.vhd",
                    parents=[(b"W2ru", ".\\base.vhd"), (b"MacX", "file:///base.vhd")])
    build_vhd.build_fixed(folder / "fixed.vpc", 64 * KIB, [(0, text)])


def make_vhdx(folder):
    image = vhdx.Image(4 * MIB)
    image.put(0, b"first block")
    image.set_state(1, vhdx.ZERO)
    image.put(3, b"last block")
    image.write(folder / "plain.vhdx")
    child = vhdx.Image(4 * MIB, parent_pairs=vhdx.parent(".\\base.vhdx"))
    child.put_sectors(1, {0: b"s" * 512, 9: b"t" * 512})
    child.write(folder / "child.vhdx")
    logged = image.write(folder / "logged.vhdx")
    size = logged.stat().st_size
    vhdx.put_log(logged, 0, [
        vhdx.log_entry(5, 0, [(vhdx.BAT_OFFSET, bytes(8) + b"\x02" + bytes(4087))], flushed=size, last=size),
        vhdx.log_entry(6, 0, [(vhdx.BAT_OFFSET + 4096, 4096)], flushed=size, last=size + MIB)])


def make_vdi(folder):
    build_vdi.build(folder / "dynamic.vdi", 4 * KIB, {0: b"a" * 512, 3: b"b" * 512}, block_size=KIB)
    build_vdi.build(folder / "static.vdi", 4 * KIB, {n: b"c" * 512 for n in range(4)}, block_size=KIB, kind=build_vdi.STATIC)
    build_vdi.build(folder / "old.vdi", 2 * MIB, {1: b"d" * 512}, version=1, table={0: build_vdi.ZERO})


# ---- Inputs of the targets ------------------------------------------------------------------------------------------

class Corpus:
    """Writes inputs into corpus/TARGET, numbered."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def add(self, target, data):
        path = self.folder / "corpus" / target
        path.mkdir(parents=True, exist_ok=True)
        self.count += 1
        (path / f"seed-{self.count}").write_bytes(data)


def add_qcow2(corpus, data):
    corpus.add("qcow2_header", struct.pack("<Q", len(data)) + data[:112])
    version, = struct.unpack_from(">I", data, 4)
    cluster_bits, size = struct.unpack_from(">IQ", data, 20)
    length = struct.unpack_from(">I", data, 100)[0] if version == 3 else 72
    extensions = data[length:1 << cluster_bits]
    corpus.add("qcow2_extensions", struct.pack("<BQBH", cluster_bits - 9, 0, 1, 0) + extensions)
    corpus.add("qcow2_extensions", struct.pack("<BQBH", cluster_bits - 9, 1 << 40, 1, 300) + extensions)
    count, offset = struct.unpack_from(">IQ", data, 60)
    bitmaps = extensions.find(b"\x23\x85\x28\x75")
    if count and bitmaps >= 0:
        bitmap_count, _, directory_size, directory = struct.unpack_from(">IIQQ", extensions, bitmaps + 8)
        tables = data[offset:offset + 512].ljust(512, b"\0") + data[directory:directory + directory_size]
        corpus.add("qcow2_tables", struct.pack("<QHHHIQ", size, count, 0, bitmap_count, directory_size, 512) + tables)


def add_vmdk(corpus, data):
    start = data.find(b"# Disk DescriptorFile")
    if start >= 0:
        corpus.add("vmdk_descriptor", data[start:start + 20 * KIB].rstrip(b"\0"))
    header = data[:2048]
    if header[56:64] == b"\xff" * 8:
        header = data[:512] + data[-1536:]
    corpus.add("vmdk_header", struct.pack("<Q", len(data)) + header)


def add_vpc(corpus, data):
    header = data[512:1536] if data[:8] == b"conectix" else bytes(1024)
    corpus.add("vpc_header", b"\x01" + data[-512:] + header + "..\\base.vhd".encode("utf-16-le"))
    corpus.add("vpc_header", b"\x03" + data[-512:] + header + "base \U0001f4be".encode("utf-16-be"))


def add_vhdx(corpus, data):
    one, two = (data[at:at + 80] for at in vhdx.HEADER_OFFSETS)
    corpus.add("vhdx_structures", b"\x80" + one + two)
    table = data[vhdx.REGION_OFFSETS[0]:][:128].rstrip(b"\0")
    corpus.add("vhdx_structures", b"\x81" + struct.pack("<QQI", len(data), vhdx.LOG_OFFSET, MIB) + table)
    items = data[vhdx.METADATA_OFFSET:][:512].rstrip(b"\0")
    corpus.add("vhdx_structures", b"\x02" + struct.pack("<IIIQI", MIB, 512, 4096, 4 * MIB, MIB) + items)
    corpus.add("vhdx_structures", b"\x03" + vhdx.locator(vhdx.parent(".\\base.vhdx")))
    log = data[vhdx.LOG_OFFSET:vhdx.LOG_OFFSET + 16 * KIB].rstrip(b"\0")
    corpus.add("vhdx_log", b"\x01" + vhdx.LOG_GUID.bytes_le + log)


def add_vdi(corpus, data):
    corpus.add("vdi_header", data[:512])


def add_small_ones(corpus):
    corpus.add("config", (TESTS.parent / "conf/imgtk.yaml").read_bytes())
    corpus.add("config", b"workers: 3\nreferences: none\nallow_dirs: [/srv, /var]\nformat_options:\n  qcow2: compat=1.1\n")
    for text in (b"cluster_size=64k,preallocation=full,compat6", b"backing_file=a,,b,connections=16", b"1.5G", b"0x10"):
        corpus.add("opts", text)
    text = b"imgtk imgtk imgtk " * 20
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    frame = b"\x28\xb5\x2f\xfd\x20" + bytes([100]) + struct.pack("<I", 100 << 3 | 1)[:3] + text[:100]
    for kind, data, length in ((0, deflate.compress(text) + deflate.flush(), len(text)), (1, zlib.compress(text), len(text)),
                               (2, frame, 100)):
        corpus.add("codec", struct.pack("<BH", kind, length - 1) + data)


def add_partitions(corpus):
    def add(flags, size, pieces):
        disk = bytearray(20 * KIB)
        for offset, data in pieces:
            disk[offset:offset + len(data)] = data[:max(0, len(disk) - offset)]
        corpus.add("partitions", struct.pack("<B", flags) + struct.pack("<Q", size)[:5] + disk[:20 * KIB].rstrip(b"\0"))

    entries = [(tables.EFI_SYSTEM, 64, 127, "EFI"), (tables.LINUX, 128, 200, "d\xfc\U0001f4be")]
    for flags, sector in ((SEALED, 512), (SEALED | 2, 4096)):
        pieces = tables.gpt(MIB, entries, sector)
        add(flags, MIB, pieces)
        add(flags, MIB, pieces[:1] + pieces[2:])
    add(0, MIB, [(0, tables.mbr((0x83, 100, 50), (0x05, 10, 80), (0x82, 200, 10))),
                 (10 * 512, tables.mbr((0x07, 1, 5), (0x05, 10, 20))), (20 * 512, tables.mbr((0x83, 2, 3)))])


def add_images(corpus, folder):
    add = {"qcow2": add_qcow2, "vmdk": add_vmdk, "vpc": add_vpc, "vhdx": add_vhdx, "vdi": add_vdi}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        fmt = path.suffix[1:]
        if fmt in add:
            add[fmt](corpus, data)
            corpus.add("image", as_input(data))
        if fmt == "qcow2":
            for change in (0, 2 + 7, 1 + 7, 3, 4, 5, 6, 3 + 7 * 4):
                corpus.add("edit", struct.pack("<BH", 0, change) + as_input(data))
            corpus.add("edit", struct.pack("<BH", 1, 3) + as_input(data))


# ---- Dictionaries ---------------------------------------------------------------------------------------------------

def write_dictionaries(folder, targets):
    for target in targets:
        names = FORMATS if target in ("image", "edit") else [target.split("_")[0]]
        words = [word for name in names for word in MAGICS[name]]
        lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words]
        (folder / f"{target}.dict").write_text("\n".join(lines) + "\n")


def main(folder):
    corpus = Corpus(folder)
    with tempfile.TemporaryDirectory() as name:
        images = Path(name)
        raw = make_raw(images)
        make_qcow2(images, raw)
        make_vmdk(images, raw)
        make_vpc(images)
        make_vhdx(images)
        make_vdi(images)
        add_images(corpus, images)
    add_small_ones(corpus)
    add_partitions(corpus)
    write_dictionaries(folder, sorted(path.name for path in (folder / "corpus").iterdir()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    main(Path(sys.argv[1]))

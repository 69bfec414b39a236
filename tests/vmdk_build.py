"""VMDK images and parts of them that qemu-img does not make: ESX extents, links, and damage to what it makes.

Offsets follow docs/formats/vmdk.md. A `grains` dictionary maps the number of a grain to its bytes.
"""
import struct
import zlib

SECTOR = 512
NO_CID = 0xFFFFFFFF


def descriptor(lines, create_type="custom", cid=0x12345678, parent_cid=NO_CID, parent=None, extra=""):
    """The text of a descriptor; `lines` are the extent lines."""
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    return (f'# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid:08x}\n'
            f'createType="{create_type}"\n{hint}{extra}\n# Extent description\n' + "\n".join(lines) +
            '\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "lsilogic"\n')


def write_descriptor(path, lines, **values):
    path.write_text(descriptor(lines, **values))
    return path


def up(value, unit):
    return (value + unit - 1) // unit * unit


def write_cowd(path, sectors, grains, grain_sectors=1):
    """ESX Server's sparse extent (vmfsSparse), version 1."""
    coverage = 4096 * grain_sectors
    entries = up(sectors, coverage) // coverage
    gd_sectors = up(entries * 4, SECTOR) // SECTOR
    tables = sorted({grain // 4096 for grain in grains})
    gd = [0] * entries
    at = 4 + gd_sectors
    for table in tables:
        gd[table] = at
        at += 32
    gts = {table: [0] * 4096 for table in tables}
    body = {}
    for grain, data in grains.items():
        gts[grain // 4096][grain % 4096] = at
        body[at] = data.ljust(grain_sectors * SECTOR, b"\0")
        at += grain_sectors
    with open(path, "wb") as file:
        file.truncate(at * SECTOR)
        file.write(struct.pack("<8I", 0x44574F43, 1, 3, sectors, grain_sectors, 4, entries, at))
        file.seek(4 * SECTOR)
        file.write(struct.pack(f"<{entries}I", *gd))
        for table in tables:
            file.seek(gd[table] * SECTOR)
            file.write(struct.pack("<4096I", *gts[table]))
        for sector, data in body.items():
            file.seek(sector * SECTOR)
            file.write(data)
    return path


ZERO, UNMAPPED = "zero", "unmapped"


def write_sesparse(path, sectors, grains, replay=0):
    """ESXi's space-efficient sparse extent; a grain (4 KiB) may also be ZERO or UNMAPPED."""
    entries = up(sectors, 8 * 4096) // (8 * 4096)
    gd_sectors = up(entries * 8, SECTOR) // SECTOR
    tables = sorted({grain // 4096 for grain in grains})
    gd_at, gt_at = 8, 8 + gd_sectors
    data_at = up(gt_at + 64 * entries, 8)
    gts = {table: [0] * 4096 for table in tables}
    body, used = [], 0
    for grain, data in grains.items():
        if data == ZERO:
            entry = 0x2 << 60
        elif data == UNMAPPED:
            entry = 0x1 << 60
        else:
            entry = 0x3 << 60 | (used & 0xFFF) << 48 | used >> 12
            body.append((used, data.ljust(4096, b"\0")))
            used += 1
        gts[grain // 4096][grain % 4096] = entry
    header = struct.pack("<6Q", 0xCAFEBABE, 0x0000000200000001, sectors, 8, 64, 0) + bytes(32)
    header += struct.pack("<16Q", 1, 1, 2, 1, 3, 4, gd_at, gd_sectors, gt_at, 64 * entries, gt_at + 64 * entries, 0,
                          gt_at + 64 * entries, 0, data_at, used * 8)
    with open(path, "wb") as file:
        file.truncate((data_at + used * 8) * SECTOR)
        file.write(header.ljust(SECTOR, b"\0"))
        file.write(struct.pack("<4Q", 0xCAFECAFE, 0, 0, replay))
        for number, table in enumerate(tables):
            file.seek(gd_at * SECTOR + table * 8)
            file.write(struct.pack("<Q", 0x1 << 60 | number))
            file.seek((gt_at + 64 * number) * SECTOR)
            file.write(struct.pack("<4096Q", *gts[table]))
        for number, data in body:
            file.seek((data_at + number * 8) * SECTOR)
            file.write(data)
    return path


class Hosted:
    """A file that begins with a hosted sparse header, to look into and to damage."""

    FIELDS = dict(magic=(0, "I"), version=(4, "I"), flags=(8, "I"), capacity=(12, "Q"), grain=(20, "Q"),
                  descriptor_offset=(28, "Q"), descriptor_size=(36, "Q"), gtes=(44, "I"), rgd=(48, "Q"), gd=(56, "Q"),
                  overhead=(64, "Q"), unclean=(72, "B"), newlines=(73, "4s"), compression=(77, "H"))

    def __init__(self, path, at=0):
        self.path, self.at = path, at

    def bytes(self, offset, length):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def poke(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def get(self, name):
        offset, kind = self.FIELDS[name]
        return struct.unpack("<" + kind, self.bytes(self.at + offset, struct.calcsize("<" + kind)))[0]

    def set(self, **values):
        for name, value in values.items():
            offset, kind = self.FIELDS[name]
            self.poke(self.at + offset, struct.pack("<" + kind, value))

    def gd_entry(self, table, value=None, redundant=False):
        """The sector of a grain table by the directory; with a value: sets it."""
        offset = self.get("rgd" if redundant else "gd") * SECTOR + table * 4
        if value is not None:
            self.poke(offset, struct.pack("<I", value))
        return struct.unpack("<I", self.bytes(offset, 4))[0]

    def gt_entry(self, grain, value=None, redundant=False):
        offset = self.gd_entry(grain // 512, redundant=redundant) * SECTOR + grain % 512 * 4
        if value is not None:
            self.poke(offset, struct.pack("<I", value))
        return struct.unpack("<I", self.bytes(offset, 4))[0]


def parse_stream(path):
    """
    Walks a streamOptimized file from marker to marker, as a reader of a pipe does, and asserts what the specification
    asks for. Returns the header's fields, {first sector: bytes of the grain} and the sector of the footer.
    """
    file = Hosted(path)
    size = path.stat().st_size
    header = {name: file.get(name) for name in Hosted.FIELDS}
    at = header["overhead"]
    grains, places, tables, directory, footer = {}, {}, {}, None, None
    while True:
        value, length, kind = struct.unpack("<QII", file.bytes(at * SECTOR, 16))
        if length > 0:
            data = file.bytes(at * SECTOR + 12, length)
            assert value % header["grain"] == 0 and value not in grains
            assert not grains or value > max(grains), "grains ascend"
            inflate = zlib.decompressobj()
            grains[value] = inflate.decompress(data)
            assert inflate.eof and inflate.unused_data == b""
            assert len(grains[value]) == header["grain"] * SECTOR
            places[value] = at
            at += up(12 + length, SECTOR) // SECTOR
        elif kind == 1:
            assert value == 4
            tables[at + 1] = struct.unpack("<512I", file.bytes((at + 1) * SECTOR, 2048))
            at += 1 + value
        elif kind == 2:
            directory = (at + 1, value)
            at += 1 + value
        elif kind == 3:
            assert value == 1
            footer = at + 1
            at += 2
        else:
            assert (value, length, kind) == (0, 0, 0)
            break
    assert (at + 1) * SECTOR == size, "the end-of-stream marker is the last sector"
    check_stream_tables(file, header, places, tables, directory, footer)
    return header, grains, footer


def check_stream_tables(file, header, places, tables, directory, footer):
    end = Hosted(file.path, footer * SECTOR)
    assert end.get("gd") == directory[0]
    for name in Hosted.FIELDS:
        if name != "gd":
            assert end.get(name) == header[name], name
    count = up(header["capacity"], 512 * header["grain"]) // (512 * header["grain"])
    assert directory[1] == up(count * 4, SECTOR) // SECTOR
    found = {}
    for table, sector in enumerate(struct.unpack(f"<{count}I", file.bytes(directory[0] * SECTOR, count * 4))):
        entries = tables.pop(sector) if sector else [0] * 512
        assert not sector or any(entries), "an empty table is left out"
        found.update({(table * 512 + i) * header["grain"]: place for i, place in enumerate(entries) if place})
    assert not tables, "every table is in the directory"
    assert found == places

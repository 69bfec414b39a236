"""Builds the VHDX images that qemu-img cannot: differencing disks, dirty logs, and broken ones.

Layout: headers, log at 1 MiB, metadata at 2 MiB, BAT at 3 MiB, blocks from `Image.data_offset` on. Everything is
sealed with good checksums; patch() and reseal() then break a file on purpose.
"""
import struct
import uuid
from pathlib import Path

MIB = 1 << 20
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY, PARTIALLY = 0, 1, 2, 3, 6, 7

HEADER_OFFSETS = (64 << 10, 128 << 10)
REGION_OFFSETS = (192 << 10, 256 << 10)
LOG_OFFSET, METADATA_OFFSET, BAT_OFFSET = 1 * MIB, 2 * MIB, 3 * MIB
HEADER_SIZE, REGION_SIZE, SECTOR = 4096, 64 << 10, 4096

BAT_REGION = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
LOCATOR_TYPE = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")

LOG_GUID = uuid.UUID("11111111-2222-3333-4444-555555555555")
DATA_WRITE = uuid.UUID("83ed0ec3-24c8-49a6-a959-5e4bf1288bfb")
FILE_WRITE = uuid.UUID("0badcafe-0000-4000-8000-000000000001")
THE_DISK = uuid.UUID("0badcafe-0000-4000-8000-000000000002")


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def seal(structure):
    """The same bytes with the checksum at 4."""
    structure = bytearray(structure)
    structure[4:8] = bytes(4)
    structure[4:8] = struct.pack("<I", crc32c(structure))
    return bytes(structure)


def header(sequence, *, data_write=DATA_WRITE, log_guid=uuid.UUID(int=0), log_offset=LOG_OFFSET, log_length=MIB,
           version=1, log_version=0):
    return seal(struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, sequence, FILE_WRITE.bytes_le, data_write.bytes_le,
                            log_guid.bytes_le, log_version, version, log_length, log_offset).ljust(HEADER_SIZE, b"\0"))


def region_table(entries):
    """entries: (guid, offset, length, required)"""
    out = struct.pack("<4sIII", b"regi", 0, len(entries), 0)
    for guid, offset, length, required in entries:
        out += struct.pack("<16sQII", guid.bytes_le, offset, length, required)
    return seal(out.ljust(REGION_SIZE, b"\0"))


def metadata(items):
    """items: (guid, bytes, flags); the table and the values behind it."""
    table = struct.pack("<8sHH20s", b"metadata", 0, len(items), bytes(20))
    values = b""
    for guid, value, flags in items:
        offset = REGION_SIZE + len(values) if value else 0
        table += struct.pack("<16sIIII", guid.bytes_le, offset, len(value), flags, 0)
        values += value
    return table.ljust(REGION_SIZE, b"\0") + values


def locator(pairs, kind=LOCATOR_TYPE):
    """A parent locator of (key, value) pairs."""
    entries, texts = b"", b""
    at = 20 + 12 * len(pairs)
    for key, value in pairs:
        key, value = key.encode("utf-16-le"), value.encode("utf-16-le")
        entries += struct.pack("<IIHH", at, at + len(key), len(key), len(value))
        texts += key + value
        at += len(key) + len(value)
    return struct.pack("<16sHH", kind.bytes_le, 0, len(pairs)) + entries + texts


def parent(path, linkage=DATA_WRITE, **more):
    """The pairs that a child records of its parent, given its path with backslashes."""
    return [("parent_linkage", "{%s}" % linkage), ("relative_path", path), *more.items()]


class Image:
    """A VHDX to be: put blocks in, then write() it."""

    def __init__(self, size, block_size=MIB, sector=512, parent_pairs=None, data_write=DATA_WRITE, fixed=False):
        self.size, self.block_size, self.sector = size, block_size, sector
        self.parent_pairs, self.data_write, self.fixed = parent_pairs, data_write, fixed
        self.chunk_ratio = (1 << 23) * sector // block_size
        self.block_count = -(-size // block_size)
        self.bat = {}        # index: entry
        self.pieces = []     # (file offset, bytes)
        chunks = -(-self.block_count // self.chunk_ratio)
        self.bat_length = -(-(chunks * (self.chunk_ratio + 1) * 8) // MIB) * MIB
        self.data_offset = self.end = BAT_OFFSET + self.bat_length
        self.bitmaps = {}    # chunk: (file offset, bytearray)
        self.extra_items, self.extra_regions = [], []

    def place(self, length):
        offset = self.end
        self.end += length
        return offset

    def index(self, block):
        return block + block // self.chunk_ratio

    def set_state(self, block, state, offset=0):
        self.bat[self.index(block)] = offset | state

    def put(self, block, data, state=FULLY):
        """A block with these bytes at its beginning; returns its file offset."""
        offset = self.place(self.block_size)
        self.pieces.append((offset, data))
        self.set_state(block, state, offset)
        return offset

    def put_sectors(self, block, sectors):
        """A partially present block: {sector within the block: bytes of that sector}."""
        chunk, base = block // self.chunk_ratio, block % self.chunk_ratio * (self.block_size // self.sector)
        offset = self.put(block, b"", PARTIALLY)
        if chunk not in self.bitmaps:
            self.bitmaps[chunk] = self.place(MIB), bytearray(MIB)
            self.bat[chunk * (self.chunk_ratio + 1) + self.chunk_ratio] = self.bitmaps[chunk][0] | 6
        for number, data in sectors.items():
            assert len(data) == self.sector
            self.pieces.append((offset + number * self.sector, data))
            self.bitmaps[chunk][1][(base + number) // 8] |= 1 << (base + number) % 8

    def items(self):
        flags = (1 if self.fixed else 0) | (2 if self.parent_pairs is not None else 0)
        items = [(FILE_PARAMETERS, struct.pack("<II", self.block_size, flags), 4),
                 (DISK_SIZE, struct.pack("<Q", self.size), 6),
                 (DISK_ID, THE_DISK.bytes_le, 6),
                 (LOGICAL_SECTOR, struct.pack("<I", self.sector), 6),
                 (PHYSICAL_SECTOR, struct.pack("<I", 4096), 6)]
        if self.parent_pairs is not None:
            items.append((PARENT_LOCATOR, locator(self.parent_pairs), 4))
        return items + self.extra_items

    def regions(self):
        return [(BAT_REGION, BAT_OFFSET, self.bat_length, 1), (METADATA_REGION, METADATA_OFFSET, MIB, 1),
                *self.extra_regions]

    def write(self, path):
        path = Path(path)
        with open(path, "wb") as file:
            def put(offset, data):
                file.seek(offset)
                file.write(data)
            put(0, b"vhdxfile" + "tests".encode("utf-16-le"))
            for number, offset in enumerate(HEADER_OFFSETS, 1):
                put(offset, header(number, data_write=self.data_write))
            table = region_table(self.regions())
            for offset in REGION_OFFSETS:
                put(offset, table)
            put(METADATA_OFFSET, metadata(self.items()))
            for index, entry in self.bat.items():
                put(BAT_OFFSET + 8 * index, struct.pack("<Q", entry))
            for offset, data in [*self.pieces, *self.bitmaps.values()]:
                put(offset, data)
            file.truncate(self.end)
        return path


def log_entry(sequence, tail, changes, *, guid=LOG_GUID, flushed=0, last=0):
    """A sealed log entry. changes: (file offset, 4096 bytes), or (file offset, number of zero bytes)."""
    descriptors, sectors = b"", b""
    for offset, change in changes:
        if isinstance(change, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, change, offset, sequence)
        else:
            assert len(change) == SECTOR
            descriptors += struct.pack("<4s4s8sQQ", b"desc", change[-4:], change[:8], offset, sequence)
            sectors += struct.pack("<4sI4084sI", b"data", sequence >> 32, change[8:-4], sequence & 0xFFFFFFFF)
    head = -(-(64 + len(descriptors)) // SECTOR) * SECTOR
    entry = struct.pack("<4sIIIQII16sQQ", b"loge", 0, head + len(sectors), tail, sequence, len(changes), 0,
                        guid.bytes_le, flushed, last) + descriptors
    return seal(entry.ljust(head, b"\0") + sectors)


def put_log(path, at, entries, *, guid=LOG_GUID, length=MIB):
    """Writes entries one behind the other from `at` in the ring, and headers that say that the log holds some."""
    ring = b"".join(entries)
    for i in range(0, len(ring), SECTOR):
        patch(path, LOG_OFFSET + (at + i) % length, ring[i:i + SECTOR])
    set_headers(path, log_guid=guid)


def set_headers(path, **fields):
    for number, offset in enumerate(HEADER_OFFSETS, 1):
        patch(path, offset, header(number, **fields))


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def read_at(path, offset, length):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def reseal(path, offset, length):
    patch(path, offset, seal(read_at(path, offset, length)))

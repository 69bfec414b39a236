"""Partition tables for tests: what the sectors of a disk with an MBR or a GPT hold, as the specifications have it."""
import struct
import uuid
import zlib

SECTOR = 512
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"


def mbr(*entries):
    """A boot record; entries are (type, first sector, sectors)."""
    rows = b"".join(struct.pack("<B3xB3xII", 0, kind, start, length) for kind, start, length in entries)
    return bytes(446) + rows.ljust(64, b"\0") + b"\x55\xaa"


def gpt_entries(partitions):
    """128 entries; partitions are (type, first sector, last sector, name)."""
    out = b""
    for number, (kind, first, last, name) in enumerate(partitions):
        out += uuid.UUID(kind).bytes_le + uuid.UUID(int=number + 1).bytes_le
        out += struct.pack("<QQQ", first, last, 0) + name.encode("utf-16-le")[:72].ljust(72, b"\0")
    return out.ljust(128 * 128, b"\0")


def gpt_header(at, other, entries_at, entries, sectors, sector=SECTOR):
    table = 128 * 128 // sector
    rest = struct.pack("<QQQQ16sQIII", at, other, 2 + table, sectors - table - 2, uuid.UUID(int=99).bytes_le,
                       entries_at, 128, 128, zlib.crc32(entries))
    plain = b"EFI PART" + struct.pack("<IIII", 0x10000, 92, 0, 0) + rest
    return plain[:16] + struct.pack("<I", zlib.crc32(plain)) + plain[20:]


def gpt(size, partitions, sector=SECTOR):
    """What make_raw() takes: (offset, bytes) of the protective MBR and both copies."""
    sectors, table = size // sector, 128 * 128 // sector
    entries = gpt_entries(partitions)
    first = gpt_header(1, sectors - 1, 2, entries, sectors, sector)
    second = gpt_header(sectors - 1, 1, sectors - 1 - table, entries, sectors, sector)
    return [(0, mbr((0xee, 1, min(sectors - 1, 2**32 - 1)))), (sector, first), (2 * sector, entries),
            ((sectors - 1 - table) * sector, entries), ((sectors - 1) * sector, second)]

"""Builds VHD images that qemu-img cannot: differencing disks, sector bitmaps with holes, damage of every kind."""
import struct
import uuid as uuids

SECTOR = 512
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NAMES = {FIXED: "fixed", DYNAMIC: "dynamic", DIFFERENCING: "differencing"}
UNALLOCATED = 0xFFFFFFFF
NO_OFFSET = (1 << 64) - 1
NO_UUID = uuids.UUID(int=0)


def seal(data, at):
    """Puts the checksum at `at`: the complement of the sum of all bytes."""
    data = bytearray(data)
    data[at:at + 4] = bytes(4)
    data[at:at + 4] = struct.pack(">I", ~sum(data) & 0xFFFFFFFF)
    return bytes(data)


def footer(kind, size, *, creator=b"win ", geometry=(65535, 16, 255), uuid=None, data_offset=None, version=0x10000,
           timestamp=0x20000000):
    cylinders, heads, sectors = geometry
    if data_offset is None:
        data_offset = NO_OFFSET if kind == FIXED else SECTOR
    out = struct.pack(">8sIIQI4sHH4sQQHBBII16s", b"conectix", 2, version, data_offset, timestamp, creator, 10, 0,
                      b"Wi2k", size, size, cylinders, heads, sectors, kind, 0, (uuid or uuids.uuid4()).bytes)
    return seal(out.ljust(SECTOR, b"\0"), 64)


def header(entries, *, table_offset=1536, block_size=1 << 21, parent_uuid=NO_UUID, parent_name="", locators=(),
           version=0x10000):
    """locators: (platform, length, offset)."""
    out = struct.pack(">8sQQIIII16sII", b"cxsparse", NO_OFFSET, table_offset, version, entries, block_size, 0,
                      parent_uuid.bytes, 0, 0)
    out += parent_name.encode("utf-16-be").ljust(512, b"\0")
    for platform, length, offset in locators:
        out += struct.pack(">4sIIIQ", platform, SECTOR, length, 0, offset)
    return seal(out.ljust(1024, b"\0"), 36)


def locator_text(platform, name):
    return name.encode() if platform == b"MacX" else name.encode("utf-16-le")


def build(path, size, pieces=(), *, kind=DYNAMIC, block_size=1 << 21, uuid=None, creator=b"win ",
          geometry=(65535, 16, 255), parent_uuid=NO_UUID, parent_name="", parents=(), entries=None, table=None,
          shuffle=False, fill=0xEE, **ends):
    """
    A dynamic or differencing disk. pieces: (offset, bytes), whole sectors, which alone are set in the bitmaps; the
    rest of an allocated block is filled with `fill`, so a reader that ignores the bitmap is found out. parents:
    (platform, name) of locators. table: {block: entry} overrides. shuffle: blocks lie in reverse order. ends: front,
    end: the bytes of the footers, b"" for none.
    """
    uuid = uuid or uuids.uuid4()
    count = -(-size // block_size)
    bitmap_size = -(-(block_size // SECTOR) // (8 * SECTOR)) * SECTOR
    blocks = {}
    for offset, data in pieces:
        assert offset % SECTOR == 0 and len(data) % SECTOR == 0
        for at in range(0, len(data), SECTOR):
            block, within = divmod(offset + at, block_size)
            if block not in blocks:
                blocks[block] = (bytearray(bitmap_size), bytearray([fill]) * block_size)
            bitmap, content = blocks[block]
            content[within:within + SECTOR] = data[at:at + SECTOR]
            bitmap[within // SECTOR // 8] |= 0x80 >> within // SECTOR % 8
    table_size = -(-max(count, 1) * 4 // SECTOR) * SECTOR
    position = 1536 + table_size
    texts, locators = b"", []
    for platform, name in parents:
        text = locator_text(platform, name)
        locators.append((platform, len(text), position + len(texts)))
        texts += text.ljust(-(-len(text) // SECTOR) * SECTOR, b"\0")
    position += len(texts)
    entry, data = [UNALLOCATED] * (table_size // 4), b""
    for block in sorted(blocks, reverse=shuffle):
        entry[block] = (position + len(data)) // SECTOR
        data += bytes(blocks[block][0] + blocks[block][1])
    for block, value in (table or {}).items():
        entry[block] = value
    good = footer(kind, size, uuid=uuid, creator=creator, geometry=geometry)
    with open(path, "wb") as file:
        file.write(ends.get("front", good).ljust(SECTOR, b"\0"))
        file.write(header(count if entries is None else entries, block_size=block_size, parent_uuid=parent_uuid,
                          parent_name=parent_name, locators=locators))
        file.write(struct.pack(f">{len(entry)}I", *entry))
        file.write(texts + data + ends.get("end", good))
    return path


def build_fixed(path, size, pieces=(), *, uuid=None, creator=b"win ", geometry=(65535, 16, 255), footer_size=SECTOR):
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        file.seek(size)
        file.write(footer(FIXED, size, uuid=uuid, creator=creator, geometry=geometry)[:footer_size])
    return path

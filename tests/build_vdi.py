"""Builds VDI images that qemu-img cannot: differencing and old ones, odd tables, damage of every kind."""
import struct
import uuid as uuids

DYNAMIC, STATIC, UNDO, DIFFERENCING = 1, 2, 3, 4
FREE, ZERO = 0xFFFFFFFF, 0xFFFFFFFE
MIB = 1 << 20
NO_UUID = uuids.UUID(int=0)


def header(kind, size, blocks, allocated, *, version=0x10001, block_size=MIB, block_extra=0, table_offset=512,
           data_offset=4096, uuid=NO_UUID, modify=NO_UUID, link=NO_UUID, parent_modify=NO_UUID, flags=0):
    text = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
    if version >> 16 == 0:
        return text + struct.pack("<IIII256sIIIIQIII", 0xBEDA107F, version, kind, flags, b"comment", 1, 1, 1, 512,
                                  size, block_size, blocks, allocated) + uuid.bytes_le + modify.bytes_le + link.bytes_le
    return text + struct.pack("<IIIII256sIIIIIIIQIIII", 0xBEDA107F, version, 400, kind, flags, b"comment",
                              table_offset, data_offset, 0, 0, 0, 512, 0, size, block_size, block_extra, blocks,
                              allocated) + uuid.bytes_le + modify.bytes_le + link.bytes_le + parent_modify.bytes_le


def build(path, size, blocks=None, *, kind=DYNAMIC, version=0x10001, block_size=MIB, block_extra=0, table=None,
          order=None, allocated=None, count=None, **fields):
    """
    blocks: {block: bytes}, each written as a block of its own, in this order or that of `order`. table: {block: entry}
    overrides (FREE, ZERO, or a place).
    """
    blocks = blocks or {}
    count = -(-size // block_size) if count is None else count
    entries = [FREE] * count
    order = list(blocks) if order is None else order
    for place, block in enumerate(order):
        entries[block] = place
    for block, value in (table or {}).items():
        entries[block] = value
    allocated = len(order) if allocated is None else allocated
    old = version >> 16 == 0
    table_offset = 420 if old else fields.pop("table_offset", 512)
    data_offset = table_offset + 4 * count if old else fields.pop("data_offset", -(-(512 + 4 * count) // 4096) * 4096)
    with open(path, "wb") as file:
        file.write(header(kind, size, count, allocated, version=version, block_size=block_size,
                          block_extra=block_extra, table_offset=table_offset, data_offset=data_offset, **fields))
        file.seek(table_offset)
        file.write(struct.pack(f"<{count}I", *entries))
        file.seek(data_offset)
        for block in order:
            file.write(b"\xEE" * block_extra + blocks[block].ljust(block_size, b"\0"))
    return path

"""A small NBD server that goes wrong in a chosen way: nbd_liar.py SOCKET HOW FILE."""
import os
import socket
import struct
import sys
import threading
import time

OPT_ABORT, OPT_GO, OPT_STRUCTURED, OPT_SET_META = 2, 7, 8, 10
REP_ACK, REP_INFO, REP_META, REP_UNSUPPORTED = 1, 3, 4, 0x80000001
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
HAS_FLAGS, CAN_MULTI_CONN = 1, 1 << 8
CMD_READ, CMD_DISCONNECT, CMD_STATUS = 0, 2, 7
CHUNK_NONE, CHUNK_DATA, CHUNK_STATUS, DONE = 0, 1, 5, 1
CONTEXT, HOLE_ZERO = 7, 3

# Descriptors of the whole file, (length, flags), and the context that they claim to be of.
EXTENTS = {
    "extents-empty": lambda size: (CONTEXT, [(0, 0)]),
    "extents-none": lambda size: (CONTEXT, []),
    "extents-too-long": lambda size: (CONTEXT, [(0xffffffff, 0)]),
    "extents-past-the-end": lambda size: (CONTEXT, [(size, 0), (0xffffffff, HOLE_ZERO), (size, 0)]),
    "extents-of-another-context": lambda size: (CONTEXT + 1, [(size, HOLE_ZERO)]),
    "extents-unaligned": lambda size: (CONTEXT, [(1000, 0)] * (size // 1000) + [(size % 1000, 0)]),
    "extents-empty-later": lambda size: (CONTEXT, [(size // 2, 0), (0, HOLE_ZERO), (size // 2, HOLE_ZERO)]),
}


class Liar:
    def __init__(self, how, content):
        self.how, self.content = how, content
        self.connections, self.reads = 0, 0
        self.structured = how.startswith(("extents-", "chunk-"))

    def size(self):
        shrunk = self.how == "shrinks" and self.connections > 1
        return len(self.content) // 2 if shrunk else len(self.content)


def take(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def answer_option(connection, option, kind, data=b""):
    connection.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)


def answer_go(connection, option, liar):
    liar.connections += 1
    flags = HAS_FLAGS | (CAN_MULTI_CONN if liar.how in ("shrinks", "cut") else 0)
    answer_option(connection, option, REP_INFO, struct.pack(">HQH", INFO_EXPORT, liar.size(), flags))
    if liar.how == "extents-unaligned":
        answer_option(connection, option, REP_INFO, struct.pack(">HIII", INFO_BLOCK_SIZE, 512, 4096, 1 << 20))
    answer_option(connection, option, REP_ACK)


def negotiate(connection, liar):
    """Fixed newstyle. False: the client went away."""
    connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    take(connection, 4)
    while True:
        _, option, length = struct.unpack(">QII", take(connection, 16))
        take(connection, length)
        if option == OPT_GO:
            answer_go(connection, option, liar)
            return True
        if option == OPT_ABORT:
            return False
        if option == OPT_STRUCTURED and liar.structured:
            answer_option(connection, option, REP_ACK)
        elif option == OPT_SET_META and liar.structured:
            answer_option(connection, option, REP_META, struct.pack(">I", CONTEXT) + b"base:allocation")
            answer_option(connection, option, REP_ACK)
        else:
            answer_option(connection, option, REP_UNSUPPORTED)


def simple_reply(connection, handle, data, error=0):
    connection.sendall(struct.pack(">II", 0x67446698, error) + handle + data)


def chunk(connection, handle, kind, data, flags=DONE, length=None):
    length = len(data) if length is None else length
    connection.sendall(struct.pack(">IHH", 0x668E33EF, flags, kind) + handle + struct.pack(">I", length) + data)


def data_chunk(connection, handle, offset, data, flags=DONE):
    chunk(connection, handle, CHUNK_DATA, struct.pack(">Q", offset) + data, flags)


def reply_in_chunks(connection, handle, offset, data, how):
    half = len(data) // 2
    if how == "chunk-out-of-range":
        data_chunk(connection, handle, offset + len(data), data)
    elif how == "chunk-before-range":
        data_chunk(connection, handle, offset - 1 if offset else (1 << 64) - half, data)
    elif how == "chunk-too-long":
        data_chunk(connection, handle, offset, data + bytes(1 << 20))
    elif how == "chunk-endless":
        chunk(connection, handle, CHUNK_DATA, struct.pack(">Q", offset), length=0xfffffff0)
        while True:
            connection.sendall(bytes(1 << 20))
    elif how == "chunk-missing":
        data_chunk(connection, handle, offset, data[:half])
    elif how == "chunk-twice":
        data_chunk(connection, handle, offset, data[:half], flags=0)
        data_chunk(connection, handle, offset, data[:half])
    elif how == "chunk-backwards":
        data_chunk(connection, handle, offset + half, data[half:], flags=0)
        data_chunk(connection, handle, offset, data[:half])
    elif how == "chunk-never-done":
        while True:
            data_chunk(connection, handle, offset, data, flags=0)
    elif how == "chunk-none":
        chunk(connection, handle, CHUNK_NONE, b"")
    else:
        data_chunk(connection, handle, offset, data)


def reply(connection, handle, offset, data, liar):
    if liar.structured:
        reply_in_chunks(connection, handle, offset, data, liar.how)
    elif liar.how == "hangup" or (liar.how == "cut" and liar.reads > 8):
        raise EOFError
    elif liar.how == "silent":
        time.sleep(60)
    elif liar.how == "error":
        simple_reply(connection, handle, b"", error=5)
    elif liar.how == "wrong-handle":
        simple_reply(connection, b"notthis!", data)
    elif liar.how == "short":
        simple_reply(connection, handle, data[:len(data) // 2])
        raise EOFError
    elif liar.how == "long":
        simple_reply(connection, handle, data + bytes(4096))
    else:
        time.sleep(0.02 if liar.how == "cut" else 0)
        simple_reply(connection, handle, data)


def talk(connection, liar):
    if liar.how == "garbage":
        connection.sendall(os.urandom(64))
        return
    if liar.how == "silent-handshake":
        time.sleep(60)
    if not negotiate(connection, liar):
        return
    while True:
        _, _, command, handle, offset, length = struct.unpack(">IHH8sQI", take(connection, 28))
        if command == CMD_DISCONNECT:
            return
        if command == CMD_STATUS:
            context, extents = EXTENTS.get(liar.how, lambda size: (CONTEXT, [(size, 0)]))(len(liar.content))
            descriptors = b"".join(struct.pack(">II", *extent) for extent in extents)
            chunk(connection, handle, CHUNK_STATUS, struct.pack(">I", context) + descriptors)
        else:
            liar.reads += 1
            reply(connection, handle, offset, liar.content[offset:offset + length], liar)


def serve_one(connection, liar):
    with connection:
        try:
            talk(connection, liar)
        except (EOFError, OSError):
            pass


def main(path, how, file):
    with open(file, "rb") as content:
        liar = Liar(how, content.read())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection, liar), daemon=True).start()


main(*sys.argv[1:])

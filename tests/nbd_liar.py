"""A small NBD server that goes wrong in a chosen way: nbd_liar.py SOCKET HOW."""
import os
import socket
import struct
import sys
import threading
import time

SIZE = 16 << 20
OPT_EXPORT_NAME, OPT_ABORT, OPT_GO = 1, 2, 7
REP_ACK, REP_INFO, REP_UNSUPPORTED = 1, 3, 0x80000001
CMD_READ, CMD_DISCONNECT = 0, 2


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


def negotiate(connection):
    """Fixed newstyle; no structured replies. False: the client went away."""
    connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    take(connection, 4)
    while True:
        _, option, length = struct.unpack(">QII", take(connection, 16))
        take(connection, length)
        if option == OPT_GO:
            answer_option(connection, option, REP_INFO, struct.pack(">HQH", 0, SIZE, 1))
            answer_option(connection, option, REP_ACK)
            return True
        if option == OPT_ABORT:
            return False
        answer_option(connection, option, REP_UNSUPPORTED)


def reply(connection, handle, length, how):
    if how == "hangup":
        raise EOFError
    if how == "silent":
        time.sleep(60)
    if how == "error":
        connection.sendall(struct.pack(">II", 0x67446698, 5) + handle)
    elif how == "wrong-handle":
        connection.sendall(struct.pack(">II", 0x67446698, 0) + b"notthis!" + bytes(length))
    else:  # short: half of the data, then the end
        connection.sendall(struct.pack(">II", 0x67446698, 0) + handle + bytes(length // 2))
        raise EOFError


def talk(connection, how):
    if how == "garbage":
        connection.sendall(os.urandom(64))
        return
    if how == "silent-handshake":
        time.sleep(60)
    if not negotiate(connection):
        return
    while True:
        _, _, command, handle, _, length = struct.unpack(">IHH8sQI", take(connection, 28))
        if command == CMD_DISCONNECT:
            return
        reply(connection, handle, length, how)


def serve_one(connection, how):
    with connection:
        try:
            talk(connection, how)
        except (EOFError, OSError):
            pass


def main(path, how):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection, how), daemon=True).start()


main(*sys.argv[1:])

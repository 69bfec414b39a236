"""NBD exports as source and destination, against nbdkit and qemu-nbd; servers that misbehave are tests/nbd_liar.py."""
import json
import os
import re
import sys
import time

import pytest

from imgtk_test import (GIB, KIB, MIB, TESTS, TIB, allocated, assert_same_bytes, compressible, execute, imgtk,
                        imgtk_fails, imgtk_interrupted, make_image, make_raw, missing, qemu_img, tool)


@pytest.fixture(scope="session", autouse=True)
def module():
    if "nbd" not in [entry["name"] for entry in json.loads(imgtk("formats", "--output=json").out)]:
        missing("the NBD module is not built (libnbd)")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    pieces = [(0, compressible(MIB)), (5 * MIB + 512, os.urandom(3 * MIB)), (12 * MIB, b"e" * 512)]
    return make_raw(tmp_path_factory.mktemp("nbd") / "source.raw", 12 * MIB + 512, pieces)


@pytest.fixture(scope="module")
def whole_blocks(tmp_path_factory):
    """A disk for servers that take blocks of 4 KiB at least."""
    pieces = [(0, compressible(MIB)), (5 * MIB + 512, os.urandom(3 * MIB))]
    return make_raw(tmp_path_factory.mktemp("nbd") / "blocks.raw", 12 * MIB, pieces)


# ---- Source and destination ---------------------------------------------------------

KINDS = {
    "file": [], "one-connection": ["--filter=multi-conn", ("multi-conn-mode=disable",)],
    "no-extents": ["--filter=noextents"],
    "slow": ["--filter=delay", ("rdelay=2ms", "wdelay=2ms")], "no-zero": ["--filter=nozero"],
    "blocks": ["--filter=blocksize-policy",
               ("blocksize-minimum=4096", "blocksize-preferred=64k", "blocksize-error-policy=error")],
    "small-requests": ["--filter=blocksize", ("maxdata=64k", "maxlen=1M")],
    "simple-replies": ["--no-sr"],
}


def kit_words(kind, *plugin):
    words = [word for word in KINDS[kind] if isinstance(word, str)]
    settings = [setting for word in KINDS[kind] if isinstance(word, tuple) for setting in word]
    return [*words, *plugin, *settings]


@pytest.mark.threads
@pytest.mark.parametrize("kind", KINDS)
def test_from_a_server(tmp_path, nbdkit, whole_blocks, kind):
    source = whole_blocks
    uri = nbdkit(*kit_words(kind, "file", source))
    imgtk("convert", "-f", "raw", "-O", "raw", uri, tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")
    imgtk("convert", "-f", "raw", "-O", "qcow2", "-c", uri, tmp_path / "out.qcow2")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, tmp_path / "out.qcow2").out


@pytest.mark.threads
@pytest.mark.parametrize("kind", KINDS)
def test_to_a_server(tmp_path, nbdkit, whole_blocks, kind):
    """Over old content, which holes of the source must replace by zeroes."""
    source = whole_blocks
    export = make_raw(tmp_path / "export", 12 * MIB, [(0, b"\xaa" * 12 * MIB)])
    uri = nbdkit(*kit_words(kind, "file", export))
    line = imgtk("convert", "-n", "--checksum", "--verify", "-f", "raw", "-O", "raw", source, uri).out
    assert_same_bytes(source, export)
    assert line.split()[0] == imgtk("checksum", source).out.split()[0]


def test_qemu_nbd_serves_any_format(tmp_path, source, serve):
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", source, tmp_path / "image.qcow2")
    uri = serve(tool("qemu-nbd"), "-r", "-t", "-f", "qcow2", "-k", tmp_path / "socket", tmp_path / "image.qcow2")
    imgtk("convert", "-f", "raw", "-O", "raw", uri, tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.parametrize("fmt", ["qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_any_format_lies_in_an_export(tmp_path, source, nbdkit, fmt):
    options = ["-o", "force_size=on"] if fmt == "vpc" else []
    qemu_img("convert", "-f", "raw", "-O", fmt, *options, source, tmp_path / "image")
    uri = nbdkit("file", tmp_path / "image")
    assert json.loads(imgtk("info", "--output=json", uri).out)["format"] == fmt
    assert "identical" in imgtk("compare", "-f", "raw", source, uri).out
    imgtk("convert", "-O", "raw", uri, tmp_path / "out")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", source, tmp_path / "out").out


def test_qcow2_is_written_into_an_export(tmp_path, source, nbdkit):
    export = make_raw(tmp_path / "export", 32 * MIB)
    imgtk("convert", "-f", "raw", "-O", "qcow2", source, nbdkit("file", export))
    qemu_img("check", "-f", "qcow2", export)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", source, export).out


def test_extents_are_the_servers(nbdkit):
    uri = nbdkit("--filter=offset", "data", "1 @0x10000 2*65536 @0x1000000 3", "offset=0")
    rows = json.loads(imgtk("map", "-f", "raw", "--output=json", uri).out)
    assert [row["data"] for row in rows][:2] == [True, False]


def test_depths_are_the_servers(tmp_path, serve):
    """And those of the same chain as imgtk reads it from the files."""
    base = make_image(tmp_path / "base.qcow2", "2M", writes=["write -P 1 0 128k", "write -P 1 1M 64k"])
    image = make_image(tmp_path / "image.qcow2", None, backing=base, backing_fmt="qcow2",
                       writes=["write -P 2 64k 128k", "write -z 1M 64k"])

    def rows(*words):
        return [[row["start"], row["length"], row["allocation-depth"]]
                for row in json.loads(imgtk("map", "--allocation-depth", "--output=json", *words).out)]

    expected = [[0, 64 * KIB, 2], [64 * KIB, 128 * KIB, 1], [192 * KIB, 832 * KIB, 0], [MIB, 64 * KIB, 1],
                [MIB + 64 * KIB, 960 * KIB, 0]]
    assert rows(image) == expected
    words = [tool("qemu-nbd"), "-r", "-t", "-f", "qcow2", "-k", tmp_path / "socket", image]
    assert rows("-f", "raw", serve(*words, "-A")) == expected
    human = imgtk("map", "--allocation-depth", "-f", "raw", f"nbd+unix:///?socket={tmp_path / 'socket'}").out
    assert [line.split()[3] for line in human.splitlines()] == ["to", "2", "1"]
    imgtk_fails("map", "--allocation-depth", serve(*words), match="qemu-nbd -A")


def test_a_tebibyte_takes_the_time_of_its_data(tmp_path, nbdkit):
    """Three pieces far apart: what is read is them, and nothing is read of what lies between."""
    log, out = tmp_path / "log", tmp_path / "out"
    at = {64 * MIB: b"first", 500 * GIB: b"second", TIB - MIB: b"third"}
    data = " ".join(f'@{offset} "{word.decode()}"' for offset, word in at.items())
    uri = nbdkit("--filter=log", "data", f"data={data}", "size=1T", f"logfile={log}")
    imgtk("convert", "-f", "raw", "-O", "raw", uri, out, timeout=30)
    requests = re.findall(r" (Read|Extents) id=\d+ offset=0x\w+ count=(0x\w+)", log.read_text())
    assert sum(int(count, 16) for kind, count in requests if kind == "Read") < MIB
    assert 256 <= sum(kind == "Extents" for kind, _ in requests) < 600 # the protocol counts in 32 bits
    assert out.stat().st_size == TIB and allocated(out) < MIB
    with open(out, "rb") as file:
        for offset, word in at.items():
            assert os.pread(file.fileno(), len(word) + 1, offset) == word + b"\0"


def test_a_file_within_a_file_system(tmp_path, nbdkit):
    """nbdkit's ext2 filter, in both directions; of holes it tells those of the file system, so they must not be asked."""
    (tmp_path / "tree").mkdir()
    source = make_raw(tmp_path / "tree/disk", 2 * MIB + 512, [(512 * KIB, os.urandom(MIB)), (2 * MIB, b"end")])
    system = make_raw(tmp_path / "system", 16 * MIB)
    execute([tool("mke2fs"), "-q", "-t", "ext4", "-d", tmp_path / "tree", system])
    uri = nbdkit("--filter=ext2", "file", system, "ext2file=/disk")
    read = ["convert", "--no-extents", "-f", "raw", "-O", "raw", uri]
    imgtk(*read, tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")
    other = make_raw(tmp_path / "other", 2 * MIB + 512, [(0, os.urandom(MIB))])
    imgtk("convert", "-n", "-f", "raw", "-O", "raw", other, uri)
    imgtk(*read, tmp_path / "back")
    assert_same_bytes(other, tmp_path / "back")


# ---- Servers that imgtk starts ---------------------------------------------------------

def test_a_command_in_brackets(tmp_path, source):
    copy = tmp_path / "it's a disk.raw"
    server = ["[", tool("nbdkit"), "--exit-with-parent", "file", source, "]"]
    imgtk("convert", "-f", "raw", "-O", "raw", "--", *server, copy)
    assert_same_bytes(source, copy)
    imgtk("convert", "-O", "qcow2", "-f", "raw", "--", "[", tool("nbdkit"), "file", copy, "]", tmp_path / "out.qcow2")
    assert "identical" in imgtk("compare", tmp_path / "out.qcow2", "[", tool("nbdkit"), "file", source, "]").out
    info = json.loads(imgtk("info", "-f", "raw", "--output=json", "[", tool("nbdkit"), "memory", "1G", "]").out)
    assert info["virtual-size"] == GIB
    imgtk("convert", "-f", "raw", "-O", "raw", source, "[", tool("nbdkit"), "memory", "64M", "]")


def running(marker):
    """Processes whose command line has the marker."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and marker in command_line(pid)]


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


@pytest.mark.parametrize("good", [True, False])
def test_the_server_is_ended(tmp_path, source, good):
    marker = f"name=marker-{tmp_path.name}"
    words = ["[", tool("nbdkit"), "-D", marker.replace("=", "."). replace("name.", "file.") + "=0", "file", source, "]"]
    target = tmp_path / "out" if good else tmp_path / "missing/out"
    result = imgtk("convert", "-f", "raw", "-O", "raw", "--", *words, target, code=None)
    assert (result.code == 0) == good, result
    deadline = time.monotonic() + 10
    while running(tmp_path.name + "=0") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(tmp_path.name + "=0") == []


@pytest.mark.parametrize("words, match", [
    (["[", "nbdkit", "memory", "1M"], r"'\[' and '\]'"), (["[", "]"], r"'\[' and '\]'"),
    (["[", "/nonexistent/server", "x", "]"], "cannot connect"),
])
def test_commands_that_cannot_be(words, match):
    result = imgtk("info", *words, code=1)
    assert re.search(match, result.err)


# ---- What is refused, and what fails ----------------------------------------------------

def test_a_read_only_export_is_refused_before_the_first_byte(tmp_path, source, nbdkit):
    uri = nbdkit("-r", "memory", "64M")
    imgtk_fails("convert", "-n", "-f", "raw", "-O", "raw", source, uri, match="the export is read-only")


def test_an_export_that_is_too_small(tmp_path, source, nbdkit):
    export = make_raw(tmp_path / "export", 4 * MIB, [(0, b"\xaa" * 4 * MIB)])
    imgtk_fails("convert", "-n", "-f", "raw", "-O", "raw", source, nbdkit("file", export), match="the disk needs")
    assert export.read_bytes() == b"\xaa" * 4 * MIB


@pytest.mark.parametrize("when", ["error-pread-rate=100%", "error-pread-rate=10%"])
def test_errors_of_the_server(tmp_path, source, nbdkit, when):
    uri = nbdkit("--filter=error", "file", source, "error=EIO", when)
    result = imgtk("convert", "-f", "raw", "-O", "raw", uri, tmp_path / "out", code=None)
    if result.code:
        assert "the server could not read" in result.err and len(result.err.splitlines()) == 1
        assert not (tmp_path / "out").exists()
    else:
        assert_same_bytes(source, tmp_path / "out")


def test_a_server_that_is_not_there(tmp_path):
    imgtk_fails("info", f"nbd+unix:///?socket={tmp_path}/none", match="cannot connect: .*No such file")


@pytest.mark.parametrize("option, match", [
    (["--storage-opts", "conections=3"], "conections"), (["--connections", "0"], "connections"),
    (["--request-size", "1"], "request-size"), (["--timeout", "soon"], "timeout")])
def test_options_are_checked(tmp_path, nbdkit, option, match):
    imgtk_fails("convert", *option, "-f", "raw", "-O", "raw", nbdkit("memory", "1M"), tmp_path / "out", match=match)


def test_options_reach_the_server(tmp_path, nbdkit):
    """What the server sees: so many connections, and requests of no more than that size."""
    log = tmp_path / "log"
    source = make_raw(tmp_path / "source.raw", 4 * MIB, [(0, os.urandom(4 * MIB))])
    uri = nbdkit("--filter=log", "--filter=noextents", "file", source, f"logfile={log}")
    options = ["--connections=2", "-R", "8", "--request-size=64k"]
    imgtk("convert", *options, "-f", "raw", "-O", "raw", uri, tmp_path / "out")
    text = log.read_text()
    assert len(set(re.findall(r"connection=(\d+) Connect", text))) == 2
    sizes = [int(size, 16) for size in re.findall(r" Read id=\d+ offset=0x[0-9a-f]+ count=(0x[0-9a-f]+)", text)]
    assert max(sizes) == 64 << 10


def test_zeroes_are_never_trimmed(tmp_path, nbdkit):
    """The holes of the source arrive as write-zeroes; what was trimmed could read as anything."""
    log = tmp_path / "log"
    source = make_raw(tmp_path / "source.raw", 8 * MIB, [(0, os.urandom(MIB))])
    export = make_raw(tmp_path / "export", 8 * MIB, [(0, b"\xaa" * 8 * MIB)])
    uri = nbdkit("--filter=log", "file", export, f"logfile={log}")
    imgtk("convert", "-n", "-f", "raw", "-O", "raw", source, uri)
    text = log.read_text()
    assert " Zero id=" in text and " Flush id=" in text and " Trim id=" not in text
    assert_same_bytes(source, export)


@pytest.mark.parametrize("flags, zeroes", [([], True), (["--destination-is-zero"], False)])
def test_a_destination_that_is_zero(tmp_path, nbdkit, flags, zeroes):
    log = tmp_path / "log"
    source = make_raw(tmp_path / "source", 4 * MIB, [(MIB, os.urandom(MIB))])
    uri = nbdkit("--filter=log", "memory", "4M", f"logfile={log}")
    imgtk("convert", *flags, "-f", "raw", "-O", "raw", source, uri)
    assert (" Zero id=" in log.read_text()) == zeroes
    assert "identical" in imgtk("compare", "-f", "raw", source, uri).out


WITHOUT_FUA = ["eval", "get_size=echo 1M", "pread=head -c $3 /dev/zero", "can_write=exit 0", "pwrite=cat >/dev/null",
               "can_zero=exit 0", "zero=exit 0", "can_flush=exit 0", "flush=exit 0", "can_fua=echo none"]


@pytest.mark.parametrize("plugin, fua", [(["memory", "1M"], "1"), (WITHOUT_FUA, "0")], ids=["fua", "flush"])
def test_write_through(tmp_path, nbdkit, plugin, fua):
    """Each request is safe when it is answered: by FUA or, where the server has none, by a flush after each."""
    log = tmp_path / "log"
    source = make_raw(tmp_path / "source", MIB, [(at * 256 * KIB, os.urandom(128 * KIB)) for at in range(4)])
    uri = nbdkit("--filter=log", *plugin, f"logfile={log}")

    def changes_and_flushes(*flags):
        log.write_text("")
        imgtk("convert", *flags, "-n", "-f", "raw", "-O", "raw", source, uri)
        text = log.read_text()
        return re.findall(r" (?:Write|Zero) id=.* fua=(\d)", text), text.count(" Flush id=")

    changes, flushes = changes_and_flushes("-t", "writethrough")
    assert len(changes) == 8 and set(changes) == {fua} and flushes == (1 if fua == "1" else 9)
    changes, flushes = changes_and_flushes()
    assert len(changes) == 8 and set(changes) == {"0"} and flushes == 1


def test_tls_with_a_shared_key(tmp_path, source, serve):
    key = os.urandom(32).hex()
    (tmp_path / "keys").write_text(f"alice:{key}\n")
    (tmp_path / "wrong").write_text(f"alice:{'0' * 64}\n")
    uri = serve(tool("nbdkit"), "-f", "-U", tmp_path / "socket", "--tls=require", f"--tls-psk={tmp_path / 'keys'}",
                "file", source).replace("nbd+unix:", "nbds+unix:")
    convert = ["convert", "-f", "raw", "-O", "raw", uri, tmp_path / "out"]
    imgtk(*convert, "--storage-opts", f"tls-username=alice,tls-psk-file={tmp_path / 'keys'}")
    assert_same_bytes(source, tmp_path / "out")
    (tmp_path / "out").unlink()
    imgtk_fails(*convert, "--storage-opts", f"tls-username=alice,tls-psk-file={tmp_path / 'wrong'}",
                match="cannot connect")
    assert not (tmp_path / "out").exists()
    plain = [word if word != uri else uri.replace("nbds+", "nbd+") for word in convert]
    imgtk_fails(*plain, match="cannot connect|TLS")


# ---- Servers that misbehave ---------------------------------------------------------------

LOST, PROTOCOL = "connection was lost|could not read|not one of the protocol", "not one of the protocol"


@pytest.fixture
def liar(tmp_path, serve, source):
    """liar(how): the URI of a server that has the bytes of `source`, and goes wrong."""
    return lambda how: serve(sys.executable, TESTS / "nbd_liar.py", tmp_path / "socket", how, source)


@pytest.mark.parametrize("how, match", [
    ("garbage", "cannot connect"), ("hangup", "connection was lost"), ("short", LOST), ("wrong-handle", LOST),
    ("error", "could not read"), ("long", LOST), ("shrinks", "bytes on one connection and"),
    ("chunk-out-of-range", LOST), ("chunk-before-range", LOST), ("chunk-too-long", LOST), ("chunk-endless", LOST),
    ("chunk-missing", PROTOCOL), ("chunk-none", PROTOCOL), ("chunk-twice", PROTOCOL), ("chunk-never-done", PROTOCOL),
    ("chunk-backwards", PROTOCOL), ("extents-none", LOST),
])
def test_replies_that_are_wrong(tmp_path, liar, how, match):
    """One line, nothing that looks complete, and no more memory than a server's good answers need."""
    words = ["convert", "-f", "raw", "-O", "raw", liar(how), tmp_path / "out"]
    imgtk_fails(*words, match=match, timeout=30, memory=512 * MIB)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["extents-empty", "extents-too-long", "extents-past-the-end",
                                 "extents-of-another-context", "extents-unaligned", "extents-empty-later"])
def test_extents_that_are_wrong(tmp_path, source, liar, how):
    """What cannot be is not believed; then all is data."""
    imgtk("convert", "-f", "raw", "-O", "raw", liar(how), tmp_path / "out", timeout=30)
    assert_same_bytes(source, tmp_path / "out")


@pytest.mark.parametrize("how", ["silent", "silent-handshake"])
def test_a_server_that_says_nothing_more(tmp_path, liar, how):
    begun = time.monotonic()
    imgtk_fails("convert", "--timeout=1", "-f", "raw", "-O", "raw", liar(how), tmp_path / "out",
                match="does not answer", timeout=30)
    assert time.monotonic() - begun < 15
    assert not (tmp_path / "out").exists()


@pytest.mark.threads
@pytest.mark.parametrize("how", ["silent", "silent-handshake"])
def test_nobody_waits_for_it_after_an_interruption(tmp_path, liar, how):
    imgtk_interrupted("convert", "-f", "raw", "-O", "raw", liar(how), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.threads
@pytest.mark.parametrize("how, words", [("silent", ["rebase", "-b", ""]), ("silent-handshake", ["commit"])])
def test_nobody_waits_for_a_backing_file_after_an_interruption(tmp_path, liar, how, words):
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", liar(how), "-F", "raw", tmp_path / "image.qcow2", "1M")
    imgtk_interrupted(*words, "--references=any", tmp_path / "image.qcow2")


def test_resume_goes_on_after_a_cut_line(tmp_path, source, nbdkit, liar):
    log = tmp_path / "log"
    words = ["convert", "--resume", "-f", "raw", "-O", "raw", "--workers=1", "--request-size=1M"]
    imgtk_fails(*words, liar("cut"), tmp_path / "out", match="connection was lost")
    assert not (tmp_path / "out").exists() and (tmp_path / "out.imgtk-part").exists()
    imgtk(*words, nbdkit("--filter=log", "--filter=noextents", "file", source, f"logfile={log}"), tmp_path / "out")
    assert_same_bytes(source, tmp_path / "out")
    read = sum(int(size, 16) for size in re.findall(r" Read id=\d+ offset=0x[0-9a-f]+ count=(0x[0-9a-f]+)", log.read_text()))
    assert read < source.stat().st_size


def test_secrets_are_not_printed():
    result = imgtk("info", "nbd://user:geheim@127.0.0.1:1/export", code=1)
    assert "geheim" not in result.err + result.out


def test_images_cannot_name_exports(tmp_path, nbdkit):
    uri = nbdkit("memory", "1M")
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", uri, "-F", "raw", tmp_path / "image.qcow2", "1M")
    imgtk_fails("convert", "-O", "raw", tmp_path / "image.qcow2", tmp_path / "out", match="--references")

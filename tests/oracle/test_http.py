"""Files of HTTP servers as sources, against nginx with and without TLS, and http_liar.py, which misbehaves."""
import json
import os
import subprocess
import time

import pytest

from http_liar import Liar
from http_server import Nginx
from imgtk_test import (IMGTK, KIB, MIB, assert_same_bytes, compressible, environment, imgtk, imgtk_fails,
                        imgtk_interrupted, make_image, make_raw, missing, peak_memory, qemu_img, qemu_io, tool)

NOWHERE = environment(TMPDIR="/nonexistent")  # a temporary copy is an error
RAW = ["-f", "raw", "-O", "raw"]
BLOCK = 32 * KIB  # what is read at least


@pytest.fixture(scope="module", autouse=True)
def storages():
    modules = [module["name"] for module in json.loads(imgtk("formats", "--output=json").out)]
    if "http" not in modules:
        missing("the HTTP module is not built (libcurl)")
    return modules


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    server = Nginx(tmp_path_factory.mktemp("nginx"), tool("nginx"), tool("openssl"))
    yield server
    server.end()


@pytest.fixture
def served(nginx):
    """A folder that nginx serves, emptied with the test."""
    nginx.log()
    yield nginx.www
    for path in nginx.www.iterdir():
        path.unlink()


@pytest.fixture
def liar():
    liars = []

    def start(content, how, **options):
        liars.append(Liar(content, how, **options))
        return liars[-1]

    yield start
    for server in liars:
        server.end()


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    pieces = [(0, compressible(MIB)), (5 * MIB + 512, os.urandom(3 * MIB)), (12 * MIB, b"e" * 512)]
    return make_raw(tmp_path_factory.mktemp("disk") / "disk.raw", 12 * MIB + 512, pieces)


@pytest.fixture
def trust(nginx):
    return ["--storage-opts", f"tls-ca-file={nginx.ca}"]


# ---- Reading -----------------------------------------------------------------------------

FORMATS = {"raw": "", "qcow2": "", "vmdk": "subformat=streamOptimized", "vdi": "", "vpc": "force_size=on", "vhdx": ""}


@pytest.mark.threads
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format(tmp_path, nginx, served, disk, trust, fmt):
    options = ["-o", FORMATS[fmt]] if FORMATS[fmt] else []
    qemu_img("convert", "-f", "raw", "-O", fmt, *options, disk, served / "disk")
    assert "identical" in imgtk("compare", "-f", "raw", disk, nginx.url("disk")).out
    imgtk("convert", *trust, "-O", "raw", nginx.url("disk", tls=True), tmp_path / "out")
    assert_same_bytes(disk, tmp_path / "out")


def test_every_command_reads_urls(nginx, served, disk):
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", disk, served / "disk.qcow2")
    local, url = served / "disk.qcow2", nginx.url("disk.qcow2")
    for words in (["map", "--output=jsonl"], ["measure", "-O", "qcow2"], ["check"], ["snapshot", "-l"], ["bitmap"]):
        assert imgtk(*words, url).out.replace(url, str(local)) == imgtk(*words, local).out
    assert json.loads(imgtk("info", "--output=json", url).out)["children"][0]["info"]["format"] == "http"


@pytest.mark.parametrize("fmt", FORMATS)
def test_info_reads_little(nginx, served, fmt):
    """Of an image with much metadata, by what the server sent."""
    content = make_raw(served / "content", 256 * MIB, [(at * MIB, b"x" * 4096) for at in range(256)])
    options = ["-o", FORMATS[fmt]] if FORMATS[fmt] else []
    qemu_img("convert", "-f", "raw", "-O", fmt, *options, content, served / "disk")
    nginx.log()
    assert json.loads(imgtk("info", "--output=json", nginx.url("disk")).out)["format"] == fmt
    rows = nginx.log()
    assert sum(row[3] for row in rows) < 400 * KIB
    assert len({row[4] for row in rows}) == 1, "one connection does"


@pytest.mark.parametrize("where, size", [*(("disk", size) for size in (0, 1, BLOCK, BLOCK + 1, 2 * BLOCK)),
                                         ("plain/disk", 0), ("plain/disk", BLOCK), ("plain/disk", BLOCK + 1)])
def test_sizes_around_a_block(tmp_path, nginx, served, size, where):
    (served / "disk").write_bytes(os.urandom(size))
    imgtk("convert", *RAW, nginx.url(where), tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[:size] == (served / "disk").read_bytes()


@pytest.mark.threads
@pytest.mark.parametrize("words", [["convert", *RAW, "{url}", "{out}"],
                                   ["compare", "-f", "raw", "-F", "raw", "{url}", "{disk}"]])
def test_requests_run_in_parallel_over_few_connections(tmp_path, liar, words):
    disk = make_raw(tmp_path / "disk", 24 * MIB, [(0, os.urandom(24 * MIB))])
    server = liar(disk.read_bytes(), "part", pause=0.1)
    imgtk(*[word.format(url=server.url, out=tmp_path / "out", disk=disk) for word in words])
    assert 4 <= server.busiest <= 8
    assert len(server.seen) > 12 and len({request["peer"] for request in server.seen}) <= 8


def test_the_number_of_connections_is_bounded(tmp_path, liar):
    server = liar(os.urandom(12 * MIB), "part", pause=0.1)
    imgtk("convert", *RAW, "--connections=2", server.url, tmp_path / "out")
    assert server.busiest == 2 and len({request["peer"] for request in server.seen}) == 2


def test_metadata_is_read_once(nginx, served):
    """Tables of many small pieces arrive in blocks, which are kept."""
    content = make_raw(served / "content", 512 * MIB, [(at * 4 * MIB, b"x" * 512) for at in range(128)])
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", content, served / "disk.vhd")
    nginx.log()
    imgtk("map", nginx.url("disk.vhd"))
    ranges = [row[5] for row in nginx.log()]
    assert len(ranges) == len(set(ranges)) and len(ranges) < 200


# ---- Reading ahead ---------------------------------------------------------------------------

@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A disk of 192 MiB as a compressed qcow2 of 13 MiB, where each piece of 2 MiB is a range of 135 KiB."""
    folder = tmp_path_factory.mktemp("packed")
    make_raw(folder / "disk.raw", 192 * MIB, [(at, os.urandom(4 * KIB)) for at in range(0, 192 * MIB, 64 * KIB)])
    imgtk("convert", "-c", "-f", "raw", "-O", "qcow2", folder / "disk.raw", folder / "disk.qcow2")
    return folder


def sent(nginx):
    return sum(row[3] for row in nginx.log())


@pytest.mark.threads
@pytest.mark.parametrize("options", [[], ["-m", "1"], ["--connections=1"], ["--connections=2"]])
def test_neighbours_share_a_request(tmp_path, nginx, served, packed, options):
    os.link(packed / "disk.qcow2", served / "disk")
    imgtk("convert", *options, "-O", "raw", nginx.url("disk"), tmp_path / "out")
    assert_same_bytes(packed / "disk.raw", tmp_path / "out")
    rows = nginx.log()
    assert len(rows) < 64 and sum(row[3] for row in rows) < 1.2 * (served / "disk").stat().st_size


@pytest.mark.threads
def test_it_is_asked_ahead_of_a_single_reader(tmp_path, liar, packed):
    server = liar((packed / "disk.qcow2").read_bytes(), "part", pause=0.1)
    imgtk("convert", "-m", "1", "-O", "raw", server.url, "null:")
    assert server.busiest > 2


def test_the_front_of_compare_and_checksum_too(nginx, served, packed):
    os.link(packed / "disk.qcow2", served / "disk")
    for words in (["compare", "-f", "raw", packed / "disk.raw"], ["checksum"]):
        imgtk(*words, nginx.url("disk"))
        assert len(nginx.log()) < 64


@pytest.mark.parametrize("words", [["info"], ["map"], ["check"], ["measure", "-O", "qcow2"]])
def test_tables_are_read_without_what_lies_around_them(nginx, served, packed, words):
    os.link(packed / "disk.qcow2", served / "disk")
    imgtk(*words, nginx.url("disk"))
    assert sent(nginx) < 400 * KIB


def test_scattered_clusters_are_read_without_what_lies_around_them(tmp_path, nginx, served):
    """Every eighth cluster of 64 KiB of a file of 32 MiB is in use."""
    made = make_image(served / "disk", 32 * MIB, writes=["write -q -P 1 0 32M"])
    qemu_io(made, *[f"discard -q {at + 64 * KIB} 448k" for at in range(0, 32 * MIB, 512 * KIB)])
    imgtk("convert", "-O", "raw", nginx.url("disk"), tmp_path / "out")
    assert sent(nginx) < 64 * 64 * KIB + 400 * KIB


def ranges(requests):
    """The first and the last byte that each of a liar's requests asked for."""
    return [tuple(map(int, request["Range"].removeprefix("bytes=").split("-"))) for request in requests]


def test_what_is_read_ahead_may_fail(tmp_path, liar, packed):
    """The readers ask for what they need by themselves, and what they are told is what counts."""
    server = liar((packed / "disk.qcow2").read_bytes(), "refuses_much")
    imgtk("convert", "--retries=0", "-O", "raw", server.url, tmp_path / "out")
    assert_same_bytes(packed / "disk.raw", tmp_path / "out")
    assert max(last - first for first, last in ranges(server.seen)) > MIB / 2, "it was tried"


@pytest.mark.threads
def test_lines_that_are_cut_while_reading_ahead(tmp_path, liar, packed):
    server = liar((packed / "disk.qcow2").read_bytes(), "every_second_is_cut", after=1)
    imgtk("convert", "-O", "raw", server.url, tmp_path / "out", timeout=120)
    assert_same_bytes(packed / "disk.raw", tmp_path / "out")


@pytest.mark.threads
@pytest.mark.parametrize("after", [6, 12])
@pytest.mark.parametrize("how", ["hangup", "other_etag", "too_long"])
def test_failures_while_reading_ahead(tmp_path, liar, packed, how, after):
    server = liar((packed / "disk.qcow2").read_bytes(), how, after=after)
    imgtk_fails("convert", "--retries=0", "-O", "raw", server.url, tmp_path / "out", match=LATER_LIES[how], timeout=30)
    assert os.listdir(tmp_path) == []


@pytest.mark.threads
@pytest.mark.parametrize("after", [6, 12])
def test_an_interruption_while_reading_ahead(tmp_path, liar, packed, after):
    server = liar((packed / "disk.qcow2").read_bytes(), "silent", after=after)
    imgtk_interrupted("convert", "-O", "raw", server.url, tmp_path / "out", after=2)
    assert len(server.seen) > after and os.listdir(tmp_path) == []


@pytest.mark.threads
def test_what_nobody_needs_is_not_waited_for(tmp_path, liar, packed):
    """The end of the file, which the server keeps to itself, belongs to no cluster."""
    content = (packed / "disk.qcow2").read_bytes() + bytes(3 * MIB)
    server = liar(content, "silent_at_the_end")
    begun = time.monotonic()
    imgtk("convert", "-f", "qcow2", "-O", "raw", server.url, tmp_path / "out")
    assert time.monotonic() - begun < 20, "its time-out is 60 seconds"
    assert any(request["Range"].endswith(f"-{len(content) - 1}") for request in server.seen), "it was tried"
    assert_same_bytes(packed / "disk.raw", tmp_path / "out")


@pytest.mark.unsanitized
def test_memory_of_reading_ahead_is_bounded(nginx, served, packed):
    os.link(packed / "disk.qcow2", served / "disk")
    assert peak_memory("convert", "-O", "raw", nginx.url("disk"), "null:") < 64 * MIB


# ---- Servers without ranges ------------------------------------------------------------------

def test_what_lies_in_order_is_read_as_it_comes(tmp_path, nginx, served, disk):
    piped = [IMGTK, "convert", "-f", "raw", "-O", "qcow2", disk, "-"]
    with open(served / "disk.qcow2", "wb") as out:
        subprocess.run(piped, stdout=out, env=environment(), check=True)
    result = imgtk("convert", "-v", "-O", "raw", nginx.url("plain/disk.qcow2"), tmp_path / "out", env=NOWHERE)
    assert "read as it comes" in result.err
    assert_same_bytes(disk, tmp_path / "out")


def test_a_raw_disk_is_read_as_it_comes(tmp_path, nginx, served, disk):
    os.link(disk, served / "disk")
    imgtk("convert", *RAW, nginx.url("plain/disk"), tmp_path / "out", env=NOWHERE)
    assert_same_bytes(disk, tmp_path / "out")


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vpc"])
def test_all_else_is_spooled(nginx, served, disk, fmt):
    options = ["-o", FORMATS[fmt]] if FORMATS[fmt] else []
    qemu_img("convert", "-f", "raw", "-O", fmt, *options, disk, served / "disk")
    assert "identical" in imgtk("compare", "-f", "raw", disk, nginx.url("plain/disk")).out
    imgtk_fails("compare", "-f", "raw", disk, nginx.url("plain/disk"), code=2, match="/nonexistent", env=NOWHERE)


@pytest.mark.parametrize("how", ["whole", "whole_without_length"])
def test_what_is_spooled_has_a_limit(tmp_path, liar, how):
    server = liar(os.urandom(3 * MIB), how)
    words = ["convert", "-O", "raw", server.url, tmp_path / "out", "--storage-opts"]
    imgtk_fails(*words, "spool-limit=2M", match="larger than the limit of 2097152 bytes")
    assert os.listdir(tmp_path) == []
    imgtk(*words, "spool-limit=3M")
    assert (tmp_path / "out").read_bytes() == server.content


def test_an_endless_file_ends_at_the_limit(tmp_path, liar):
    server = liar(b"", "endless_whole")
    imgtk_fails("convert", "-O", "raw", server.url, tmp_path / "out", "--storage-opts", "spool-limit=8M",
                match="larger than the limit")


# ---- Credentials, TLS, redirects ------------------------------------------------------------------

@pytest.fixture
def small(served):
    return make_image(served / "disk.qcow2", 4 * MIB, writes=["write -P 7 0 1M"])


def test_user_and_password_of_the_url(nginx, small):
    url = nginx.url("user/disk.qcow2", user="alice:geh%40eim@")
    shown = imgtk("info", "-v", url)
    as_json = imgtk("info", "--output=json", url)
    failed = imgtk_fails("info", "-f", "vdi", url)
    wrong = imgtk_fails("info", url.replace("eim@", "eimer@"), match="status 401.*netrc-file")
    converted = imgtk("convert", "-v", "-p", "--progress-format=jsonl", "--progress=1", url, "null:")
    for result in (shown, as_json, failed, wrong, converted):
        text = result.out + result.err
        assert "geh" not in text and "alice" not in text, result
    assert nginx.url("user/disk.qcow2") in shown.out


def test_user_and_password_of_netrc(tmp_path, nginx, small):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login alice password geh@eim\n")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password geh@eim\n")
    url = nginx.url("user/disk.qcow2")
    imgtk("info", "--storage-opts", f"netrc-file={tmp_path / 'netrc'}", url)
    imgtk("info", "--storage-opts", "netrc=on", url, env=environment(HOME=tmp_path))
    imgtk_fails("info", url, match="status 401", env=environment(HOME=tmp_path))
    imgtk_fails("info", "--storage-opts", "netrc-file=/nonexistent", url, match="cannot read '/nonexistent'")


def test_a_token(tmp_path, nginx, small):
    (tmp_path / "token").write_text("geheim-token\n")
    url = nginx.url("token/disk.qcow2")
    result = imgtk("info", "-v", "--storage-opts", f"token-file={tmp_path / 'token'}", url)
    assert "geheim" not in result.out + result.err
    imgtk_fails("info", url, match="status 401")
    for bad in ("", "two words", "x" * 70000, "a\r\nHost: b"):
        (tmp_path / "token").write_text(bad)
        imgtk_fails("info", "--storage-opts", f"token-file={tmp_path / 'token'}", url, match="holds no token")


def test_other_servers_are_not_told_credentials(tmp_path, liar, small):
    """Neither by following a redirect, nor by asking the place that it led to."""
    (tmp_path / "token").write_text("geheim-token")
    target = liar(small.read_bytes(), "part")
    for words, user in ((["--storage-opts", f"token-file={tmp_path / 'token'}"], ""), ([], "alice:geheim@")):
        first = liar(b"", "redirect", elsewhere=target.url)
        imgtk("convert", *words, "-O", "raw", first.url.replace("//", f"//{user}"), tmp_path / "out")
        assert len(first.seen) == 1 and "Authorization" in first.seen[0]
    assert len(target.seen) >= 4 and not any("Authorization" in request for request in target.seen)


def test_certificates_are_checked(tmp_path, nginx, small, trust):
    url = nginx.url("disk.qcow2", tls=True)
    imgtk_fails("info", url, match="cannot connect: .*certificate")
    imgtk("info", *trust, url)
    imgtk("info", "--storage-opts", "tls-verify-peer=off", url)
    imgtk_fails("info", *trust, url.replace("127.0.0.1", "localhost"), match="cannot connect: ")
    imgtk_fails("info", "--storage-opts", "tls-ca-file=/nonexistent/ca", url, match="cannot read '/nonexistent/ca'")


def test_redirects(tmp_path, nginx, small, trust):
    imgtk("convert", *trust, "-O", "raw", nginx.url("moved/disk.qcow2", tls=True), tmp_path / "out")
    asked = [row[1] for row in nginx.log()]
    assert asked[0] == "/moved/disk.qcow2" and set(asked[1:]) == {"/disk.qcow2"}, "the place is remembered"
    imgtk_fails("info", "--storage-opts", "redirects=0", nginx.url("moved/disk.qcow2"), match="redirects more often")
    imgtk_fails("info", *trust, nginx.url("down/disk.qcow2", tls=True), match="redirects from https to another")


def test_an_address_that_a_redirect_gave_may_expire(tmp_path, liar):
    server = liar(os.urandom(8 * MIB), "signed")
    imgtk("convert", *RAW, "-m", "1", server.url, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == server.content


# ---- What is refused ---------------------------------------------------------------------------------

def test_nothing_is_written(tmp_path, nginx, served, disk):
    imgtk_fails("convert", *RAW, disk, nginx.url("new"), match="read, never written")
    imgtk_fails("resize", "-f", "raw", nginx.url("disk"), "1G", match="read, never written")
    assert nginx.log() == []


@pytest.mark.parametrize("policy", [[], ["--allow-dir", "/"], ["--references=none"]])
def test_images_cannot_name_urls(tmp_path, nginx, small, policy):
    """As backing file and as data file; the server is not asked for anything."""
    url = nginx.url("disk.qcow2")
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", url, "-F", "qcow2", tmp_path / "overlay.qcow2", "4M")
    words = ["-O", "raw", tmp_path / "overlay.qcow2", tmp_path / "out"]
    imgtk_fails("convert", *policy, *words, match="refers to 'http.*--references")
    assert nginx.log() == [] and not (tmp_path / "out").exists()
    imgtk("convert", "--references=any", *words)


def test_images_on_servers_cannot_name_files(tmp_path, nginx, served):
    make_raw(tmp_path / "base", MIB)
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "base", "-F", "raw", served / "overlay.qcow2")
    imgtk_fails("convert", "-O", "raw", nginx.url("overlay.qcow2"), tmp_path / "out", match="is not in a folder")


@pytest.mark.parametrize("url, match", [
    ("http://127.0.0.1:1/disk", "cannot connect"), ("http://", "not a URL"), ("http://[::1/x", "not a URL"),
    ("https://nowhere.invalid/x", "cannot connect")])
def test_servers_that_are_not_there(url, match):
    imgtk_fails("info", url, match=match)


def test_options_are_checked(nginx, small, storages):
    url = nginx.url("disk.qcow2")
    imgtk_fails("info", "--storage-opts", "conections=3", url, match="did you mean 'connections'")
    imgtk_fails("convert", "--retries=many", url, "null:", match="retries expects a number")
    if "nbd" in storages:
        imgtk("info", "--storage-opts", "tls-psk-file=/of/another/storage", url)


# ---- Servers that misbehave ---------------------------------------------------------------------------

LIES = {
    "too_long": "more bytes than it was asked for", "endless": "more bytes than it was asked for",
    "too_short": "fewer bytes than it says", "other_range": "sends others",
    **{how: "does not tell how long|sends others" for how in ("backward_range", "huge_range", "no_range")},
    "encoded": "Content-Encoding",
    "odd_status": "status 299", "nothing": "status 204", "not_there": "no such file .status 404",
    "forbidden": "refuses to give", "broken": "status 500", "garbage": "request failed: .*HTTP/0.9",
    "endless_headers": "bytes of headers|headers", "endless_continue": "bytes of headers|headers",
    "loop": "redirects more often", "other_protocol": "neither http nor https", "to_a_file": "neither http nor https",
    "cut": "connection was lost at offset", "hangup": "connection was lost at offset",
}
LATER_LIES = {
    **{how: LIES[how] for how in ("too_long", "endless", "too_short", "other_range", "no_range", "not_there", "broken",
                                  "garbage", "endless_headers", "loop", "cut", "hangup")},
    **{how: "not the one that the job began with"
       for how in ("shrunk", "gone_beyond", "other_etag", "condition_failed")},
    "whole": "whole file, and was asked for a part",
}


def lies(tmp_path, server, match, *options):
    imgtk_fails("convert", "--retries=0", *options, *RAW, server.url, tmp_path / "out", match=match, timeout=30)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", LIES)
def test_lies_from_the_beginning(tmp_path, liar, how):
    lies(tmp_path, liar(os.urandom(MIB), how), LIES[how])


@pytest.mark.parametrize("how", LATER_LIES)
def test_lies_in_the_middle(tmp_path, liar, how):
    lies(tmp_path, liar(os.urandom(6 * MIB), how, after=2), LATER_LIES[how])


def test_a_size_that_is_not_told(tmp_path, liar):
    lies(tmp_path, liar(os.urandom(MIB), "no_total"), "does not tell how long")


def test_a_date_that_changes(tmp_path, liar):
    lies(tmp_path, liar(os.urandom(6 * MIB), "other_date"), "not the one that the job began with")


@pytest.mark.parametrize("how, after", [("silent", 0), ("silent_in_the_middle", 2), ("dripping", 2)])
def test_a_server_that_says_nothing_more(tmp_path, liar, how, after):
    begun = time.monotonic()
    lies(tmp_path, liar(os.urandom(6 * MIB), how, after=after), "does not answer", "--timeout=1")
    assert time.monotonic() - begun < 15


@pytest.mark.threads
@pytest.mark.parametrize("how, after", [("silent", 0), ("silent_in_the_middle", 2), ("busy", 2)])
def test_nobody_waits_for_it_after_an_interruption(tmp_path, liar, how, after):
    imgtk_interrupted("convert", "--retries=20", *RAW, liar(os.urandom(6 * MIB), how, after=after).url, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_stream_that_is_cut(tmp_path, liar):
    lies(tmp_path, liar(os.urandom(6 * MIB), "whole_cut"), "connection was lost at offset")


@pytest.mark.unsanitized
@pytest.mark.parametrize("how", ["endless", "endless_headers"])
def test_memory_is_bounded(liar, how):
    server = liar(os.urandom(MIB), how)
    assert peak_memory("info", server.url, code=1) < 48 * MIB


# ---- Lines that are cut, and content that changes ----------------------------------------------------------

@pytest.mark.threads
def test_lost_connections_are_made_again(tmp_path, liar):
    server = liar(os.urandom(8 * MIB), "every_second_is_cut", after=1)
    imgtk("convert", *RAW, server.url, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == server.content


def test_what_has_come_is_not_asked_for_again(tmp_path, liar):
    server = liar(os.urandom(MIB), "every_second_is_cut", after=1)
    imgtk("convert", *RAW, "-m", "1", server.url, tmp_path / "out")
    asked = [request["Range"] for request in server.seen]
    assert asked == [f"bytes=0-{BLOCK - 1}", f"bytes=0-{MIB - 1}", f"bytes={MIB // 2}-{MIB - 1}"]


def test_a_small_file_without_ranges_is_taken_from_its_beginning_again(tmp_path, liar):
    server = liar(os.urandom(20 * KIB), "whole_cut_at_first")
    imgtk("convert", *RAW, server.url, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == server.content


def test_a_server_that_is_busy_is_asked_later(liar):
    server = liar(os.urandom(256 * KIB), "busy_at_first")
    begun = time.monotonic()
    imgtk("info", server.url)
    assert time.monotonic() - begun > 1, "when it said"


def test_retries_end(tmp_path, liar):
    server = liar(os.urandom(MIB), "cut", after=1)
    imgtk_fails("convert", "--retries=1", *RAW, server.url, tmp_path / "out",
                match="tried again 1 times: the connection was lost at offset")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_replaced(tmp_path, nginx, served):
    """nginx itself says so: by the condition that each request carries. Its ETag is made of seconds and size."""
    make_raw(served / "disk", 16 * MIB, [(0, os.urandom(16 * MIB))])
    os.utime(served / "disk", (0, 10 ** 9))
    words = ["convert", *RAW, "-m", "1", "--rate-limit=4M", nginx.url("disk"), tmp_path / "out"]
    process = subprocess.Popen([IMGTK, *words], stderr=subprocess.PIPE, env=environment(), text=True)
    while not any(row[2] == 206 for row in nginx.log()):
        time.sleep(0.01)
    make_raw(served / "new", 16 * MIB, [(0, os.urandom(16 * MIB))]).rename(served / "disk")
    assert process.communicate(timeout=30)[1].endswith("not the one that the job began with\n")
    assert process.returncode == 1 and os.listdir(tmp_path) == []
    assert 412 in [row[2] for row in nginx.log()]


def test_a_conversion_goes_on_where_the_line_was_cut(tmp_path, liar):
    content = os.urandom(24 * MIB)
    first = liar(content, "hangup", after=6)
    words = ["convert", *RAW, "--resume", "--retries=0", "-m", "1"]
    imgtk_fails(*words, first.url, tmp_path / "out", match="connection was lost")
    assert not (tmp_path / "out").exists() and (tmp_path / "out.imgtk-part").exists()
    first.how = "part"
    before = len(first.seen)
    imgtk(*words, first.url, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    asked = sum(last - first + 1 for first, last in ranges(first.seen[before:]))
    assert asked <= 20 * MIB, "not from the beginning: four pieces or more had come"
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_conversion_goes_on_with_the_same_content_only(tmp_path, liar):
    server = liar(os.urandom(12 * MIB), "hangup", after=4)
    words = ["convert", *RAW, "--resume", "--retries=0", "-m", "1", server.url, tmp_path / "out"]
    imgtk_fails(*words, match="connection was lost")
    server.how, server.after = "other_etag", 0
    imgtk_fails(*words, match="the source or the options have changed")

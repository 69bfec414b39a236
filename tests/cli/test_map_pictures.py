"""imgtk map draws: well-formed pictures of bounded size, whatever the image and its names are."""
import fcntl
import json
import os
import pty
import random
import re
import struct
import subprocess
import termios
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from imgtk_test import GIB, IMGTK, KIB, MIB, ROOT, TIB, environment, imgtk, make_image, make_raw, tool
from picture_images import make_sample
from partition_tables import EFI_SYSTEM, LINUX, gpt, mbr

SVG = "{http://www.w3.org/2000/svg}"


def svg(*arguments):
    return ElementTree.fromstring(imgtk("map", "--output=svg", *arguments).raw)


def texts(element):
    return ["".join(text.itertext()) for text in element.iter(SVG + "text")]


class Page(HTMLParser):
    """What a browser makes of a page: its tags, the text of each kind of element, and the data of its script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], {}, []
        self.feed(text)
        self.close()
        self.data = json.loads(self.text["script"][0])

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)
        self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open:
            self.text[self.open[-1]][-1] += data


def page(*arguments):
    return Page(imgtk("map", "--output=html", *arguments).out)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """disk.raw with a GPT, packed.qcow2 (the same, compressed) and top.qcow2 over that."""
    folder = tmp_path_factory.mktemp("images")
    partitions = [(EFI_SYSTEM, 2048, 10239, "EFI"), (LINUX, 10240, 120000, "root")]
    make_raw(folder / "disk.raw", 64 * MIB, [*gpt(64 * MIB, partitions), (MIB, b"x" * 2 * MIB),
                                             (40 * MIB, b"y" * 64 * KIB)])
    imgtk("convert", "-c", "-O", "qcow2", folder / "disk.raw", folder / "packed.qcow2")
    make_image(folder / "top.qcow2", None, backing="packed.qcow2", backing_fmt="qcow2",
               writes=["write 8M 4M", "write -z 16M 1M"])
    return folder


@pytest.fixture
def chain(images, monkeypatch):
    """Those images in the working folder."""
    monkeypatch.chdir(images)


def test_svg(chain):
    picture = svg("top.qcow2")
    words = texts(picture)
    assert words[:2] == ["top.qcow2", "64 MiB, qcow2, 2 layers; GPT with 2 partitions"]
    assert "4 MiB, 6.25%" in words, "data"
    assert "1 MiB, 1.56%" in words, "zero"
    assert "0: top.qcow2" in words and "1: packed.qcow2" in words
    assert words.count('1 EFI System "EFI"') == words.count('2 Linux "root"') == 2, "beside both maps"
    maps = {group.get("id"): group for group in picture.iter(SVG + "g")}
    assert sorted(maps) == ["map-kinds", "map-layers"]
    paths = {path.get("class"): path.get("d") for path in maps["map-kinds"].iter(SVG + "path")}
    # A row of 128 cells is 1 MiB: 4 MiB of data are four whole rows from the ninth on, as bars from their bottom.
    assert paths["data"].count("h768v-8h-768z") == 4
    assert "M0 104h768v-8h-768z" in paths["data"]
    assert "M0 200h768v-8h-768z" in paths["zero"]


def test_kinds_stand_upon_each_other(tmp_path):
    picture = svg(make_image(tmp_path / "stack.qcow2", GIB,
                             writes=["write 0 64k", "write -z 64k 64k", "write 128k 64k"]))
    paths = {path.get("class"): path.get("d") for path in picture.iter(SVG + "path")}
    assert paths["data"] == "M0 8h12v-4h-12z", "half of two cells of 128 KiB"
    assert paths["zero"] == "M0 4h6v-4h-6z"


def test_ranges_and_offsets(chain):
    words = texts(svg("-s", "8M", "-l", "8M", "top.qcow2"))
    assert words[1] == "64 MiB, of which 8 MiB from 8 MiB on, qcow2, 2 layers; GPT with 2 partitions"
    assert "8 MiB" in words and "4 MiB, 50%" in words
    assert '2 Linux "root"' in words and not any("EFI" in word for word in words)
    assert texts(svg("-s", "64M", "top.qcow2"))[1].startswith("64 MiB, of which 0 B from 64 MiB on")


def test_holes_of_a_raw_file_are_holes(chain):
    text = imgtk("map", "--output=bar", "disk.raw").out
    assert re.search(r"(?m)^ *0 zero +0 B +0%", text) and re.search(r"(?m)^ *\. hole +61\.9 MiB +96\.\d%", text)


def test_differences(chain):
    picture = svg("--relative-to=packed.qcow2", "top.qcow2")
    words = texts(picture)
    assert words[1] == "64 MiB, qcow2, 2 layers; differences from packed.qcow2; GPT with 2 partitions"
    assert "4 MiB, 6.25%" in words and "60 MiB, 93.8%" in words, "zeroes over a hole are the same"
    text = imgtk("map", "--output=bar", "--relative-to=packed.qcow2", "top.qcow2").out
    assert re.search(r"- same +60 MiB +93\.8%", text)
    assert page("--relative-to=packed.qcow2", "top.qcow2").data["differences"] is True


@pytest.mark.parametrize("form", ["bar", "svg", "html"])
def test_images_of_no_length_and_of_any(chain, form):
    make_raw("empty.raw", 0)
    make_raw("byte.raw", 1, [(0, b"x")])
    make_image("huge.qcow2", 16 * TIB)
    assert "0 B, raw; no partition table" in imgtk("map", f"--output={form}", "empty.raw").out
    assert "512 B, raw; no partition table" in imgtk("map", f"--output={form}", "byte.raw").out
    huge = imgtk("map", f"--output={form}", "huge.qcow2").out
    assert "15 TiB" in huge and "A row is 256 GiB" in huge or form == "bar" and "A character is 16 GiB" in huge
    assert len(huge) < 30 * KIB


def test_names_are_text(chain):
    name = "<b>&\"'\N{RIGHT-TO-LEFT OVERRIDE}\x01.raw"
    hostile = "</script><i a='\">&"
    make_raw(name, 64 * MIB, gpt(64 * MIB, [(LINUX, 2048, 4095, hostile)]))
    shown = "<b>&\"'\ufffd\ufffd.raw"
    assert texts(svg(name))[0] == shown
    assert f'1 Linux "{hostile}"' in texts(svg(name))
    document = page(name)
    assert document.text["title"][0] == shown
    assert document.data["partitions"][0]["label"] == f'1 Linux "{hostile}"'
    assert document.text["td"][2] == hostile
    assert not {"b", "i"} & {tag for tag, _ in document.tags}
    assert imgtk("map", "--output=bar", name).out.startswith(f"{shown}: 64 MiB, raw; GPT with 1 partition\n")


def test_a_page_needs_nothing_else(chain):
    text = imgtk("map", "--output=html", "top.qcow2").out
    assert set(re.findall(r"\w+://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}, "the name of a language"
    assert not re.search(r"(?i)\b(src|href|url|import)\b\s*[=(]", text)
    document = Page(text)
    assert {tag for tag, _ in document.tags} == {
        "html", "head", "meta", "title", "style", "body", "nav", "button", "output", "main", "svg", "rect", "text", "g",
        "path", "table", "tr", "th", "td", "p", "div", "script"}
    policy = [meta["content"] for tag, meta in document.tags if "http-equiv" in meta]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_the_data_of_a_page(chain):
    data = page("top.qcow2").data
    assert (data["start"], data["length"], data["cell"]) == (0, 64 * MIB, KIB)
    assert data["layers"] == ["top.qcow2", "packed.qcow2"]
    assert data["partitions"][0] == {"start": MIB, "length": 4 * MIB, "label": '1 EFI System "EFI"'}
    rows = [data["cells"][at:at + 6] for at in range(0, len(data["cells"]), 6)]
    assert sum(row[0] for row in rows) == 64 * KIB
    table = json.loads(imgtk("map", "--output=json", "top.qcow2").out)
    assert sum(row[0] * row[1] for row in rows) == 4 * MIB
    assert sum(row[0] * row[2] for row in rows) == sum(row["length"] for row in table if row["compressed"]) > 0
    assert sum(row[0] * row[3] for row in rows) == MIB
    assert [row[4:] for row in rows if row[1]] == [[0, KIB]]


def many_extents(path, tables):
    """A qcow2 whose clusters are zero or unallocated at random: 8192 per table."""
    cluster, choice = 64 * KIB, random.Random(1)
    size = tables * 8192 * cluster
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, size, 0, tables, 2 * cluster, cluster, 1,
                         0, 0, 0, 0, 0, 4, 104)
    first = b"".join(struct.pack(">Q", (3 + table) * cluster) for table in range(tables))
    second = b"".join(bytes(7) + bytes([byte & 1]) for byte in choice.randbytes(8192))
    with open(path, "wb") as file:
        for piece in (header, b"", first, *[second] * tables):
            file.write(piece.ljust(cluster, b"\0"))
    return path


def test_size_is_bounded(tmp_path):
    image = many_extents(tmp_path / "many.qcow2", 16)
    for form, limit in [("bar", 4 * KIB), ("svg", 128 * KIB), ("html", 3 * MIB // 2)]:
        text = imgtk("map", f"--output={form}", image).raw
        assert len(text) < limit
        assert re.search(rb"zero.*4\.0\d GiB", text, re.DOTALL)


def test_the_sample_of_the_documentation(tmp_path, monkeypatch):
    """tests/pictures --write-sample draws it anew."""
    monkeypatch.chdir(make_sample(tmp_path).parent)
    assert imgtk("map", "--output=svg", "disk.qcow2").out == (ROOT / "docs/pictures/sample.svg").read_text()
    bar = imgtk("map", "--output=bar", "disk.qcow2", env=environment(COLUMNS="80")).out
    assert f"```\n{bar}```\n" in (ROOT / "docs/pictures.md").read_text()


# ---- Partition tables ----

def test_logical_partitions(chain):
    make_raw("mbr.raw", 16 * MIB, [(0, mbr((0x83, 2048, 2048), (0x0f, 8192, 20000))),
                                   (8192 * 512, mbr((0x07, 63, 100), (0x05, 9000, 1000))),
                                   (17192 * 512, mbr((0x82, 63, 100)))])
    assert imgtk("map", "--output=bar", "mbr.raw").out.splitlines()[-3:] == [
        "     1 MiB  ^1 Linux, 1 MiB", "4.0308 MiB  ^5 NTFS or exFAT, 50 KiB", "8.4253 MiB  ^6 Linux swap, 50 KiB"]


def test_a_damaged_table_is_told(chain):
    make_raw("damaged.raw", 64 * MIB, gpt(64 * MIB, [(LINUX, 2048, 4095, "a")])[:3])
    with open("damaged.raw", "r+b") as file:
        os.pwrite(file.fileno(), b"\xff", 1024)
    words = texts(svg("damaged.raw"))
    assert words[1] == "64 MiB, raw; partitions unknown: the checksum of the GPT's entries is wrong"
    pieces = gpt(64 * MIB, [(LINUX, 2048, 4095, "a")])
    make_raw("half.raw", 64 * MIB, [pieces[0], *pieces[3:]])
    assert "GPT (its second copy; the first is damaged) with 1 partition" in texts(svg("half.raw"))[1]


@pytest.mark.parametrize("kind", ["mbr", "gpt"])
def test_nbdkits_partitions(chain, kind):
    """Tables that another program made: six partitions, of which an MBR must make the last three logical."""
    for number in range(6):
        make_raw(f"part{number}", MIB + number * 64 * KIB)
    tool("nbdkit")
    subprocess.run(["nbdkit", "-U", "-", "partitioning", *[f"file=part{number}" for number in range(6)],
                    f"partition-type={kind}", "--run", f"{tool('nbdcopy')} \"$uri\" made.raw"], check=True)
    found = page("made.raw").data["partitions"]
    assert [part["length"] for part in found] == [MIB + number * 64 * KIB for number in range(6)]
    numbers = [int(part["label"].split()[0]) for part in found]
    assert numbers == ([1, 2, 3, 5, 6, 7] if kind == "mbr" else [1, 2, 3, 4, 5, 6])


# ---- In the terminal ----

def bar_rows(text):
    """The block of kinds: the rows that have an offset, up to the legend."""
    return re.findall(r"(?m)^ *[\d.]+ \w+  ([^\n^]*)$", text.split(" data ")[0])


def on_a_terminal(*arguments, **changes):
    """What imgtk writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    env = environment(**{"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "NO_COLOR": None, "COLUMNS": None, **changes})
    with subprocess.Popen([IMGTK, *arguments], stdout=theirs, env=env) as process:
        os.close(theirs)
        out = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            out += piece
    os.close(ours)
    assert process.returncode == 0
    return out.decode().replace("\r\n", "\n")


def test_bar(chain):
    rows = bar_rows(imgtk("map", "--output=bar", "top.qcow2", env=environment(COLUMNS=None)).out)
    assert [len(row) for row in rows] == [64] * 16
    assert rows[2] == "#" * 64 and rows[4] == "0" * 16 + "." * 48
    assert rows[0].startswith("c") and rows[0][16] == "c"


@pytest.mark.parametrize("columns, width", [("20", 16), ("43", 16), ("44", 32), ("140", 128), ("100000", 256),
                                            ("x", 64)])
def test_bar_respects_the_width(chain, columns, width):
    rows = bar_rows(imgtk("map", "--output=bar", "top.qcow2", env=environment(COLUMNS=columns)).out)
    assert {len(row) for row in rows} == {width}
    assert len(rows) <= 16


def test_bar_on_a_terminal(chain):
    text = on_a_terminal("map", "--output=bar", "top.qcow2")
    assert "\u2588" in on_a_terminal("map", "--untrusted", "--output=bar", "packed.qcow2"), "nothing is read for it"
    assert "\033[38;5;32m" + "\u2588" * 64 + "\033[m\n" in text, "data, with one change of colour"
    assert "\u2583" in on_a_terminal("map", "--output=bar", "disk.raw"), "the first 20 KiB of 64"
    plain = re.sub(r"\033\[[\d;]*m", "", text)
    assert {len(row) for row in bar_rows(plain)} == {64}
    assert "0 B\033" not in text and text.count("\033[m") >= 16


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": None}], ids=str)
def test_bar_without_colours(chain, changes):
    text = on_a_terminal("map", "--output=bar", "top.qcow2", **changes)
    assert "\033" not in text and text.isascii()
    assert text == imgtk("map", "--output=bar", "top.qcow2", env=environment(COLUMNS="100")).out


def test_bar_in_another_character_set(chain):
    text = on_a_terminal("map", "--output=bar", "top.qcow2", LC_ALL="C")
    assert "\033[38;5;32m" + "#" * 64 in text and text.isascii()

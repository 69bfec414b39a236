"""imgtk create prints qemu-img's line, makes the same kinds of images, and leaves nothing behind when it fails."""
import json
import os
import re

import pytest

from imgtk_test import MIB, digest, environment, imgtk, imgtk_fails, make_image, make_raw, qemu_img

LINES = [
    "a.raw 1M",
    "-f raw -o preallocation=full a 1M",
    "-f qcow2 a 10M",
    "-f qcow2 -o cluster_size=4k,lazy_refcounts=on a 10M",
    "-f qcow2 -o cluster_size=4k -o preallocation=metadata -o cluster_size=8k a 1M",
    "-f qcow2 -o compat=0.10 a 1G",
    "-f qcow2 -o extended_l2=on,compression_type=zstd,refcount_bits=1 a 1M",
    "-f qcow2 -o data_file=data.raw,data_file_raw=on a 1M",
    "-f qcow2 -b base.qcow2 -F qcow2 a",
    "-f qcow2 -b base.qcow2 -F qcow2 a 20M",
    "-f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 a",
    "-f qcow2 -u -b nx.qcow2 -F qcow2 a 5M",
    "-f qcow2 a 512",
    "-f qcow2 a 1.5M",
    "-f vmdk a 10M",
    "-f vmdk -o adapter_type=lsilogic,subformat=streamOptimized,toolsversion=4 a 1M",
    "-f vpc a 10M",
    "-f vpc -o subformat=fixed,force_size=on a 10M",
    "-f vhdx a 10M",
    "-f vhdx -o subformat=fixed,block_size=1M,log_size=2M a 10M",
    "-f vdi a 10M",
    "-f vdi -o static=on a 10M",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_image("base.qcow2", 10 * MIB)
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_the_line_and_the_size_are_qemu_imgs(folder, line):
    words = line.split()
    name = words[-1] if words[-1].startswith("a") else words[-2]
    expected = qemu_img("create", *words).out
    size = json.loads(qemu_img("info", "--output=json", "-U", name).out)["virtual-size"] if "nx" not in line else None
    os.remove(name)
    result = imgtk("create", *words)
    assert result.out == expected
    assert result.err == ""
    if size is not None and "-f vpc a" not in line:  # a dynamic VHD's size depends on the creator
        assert json.loads(qemu_img("info", "--output=json", name).out)["virtual-size"] == size


def test_quiet(folder):
    assert imgtk("create", "-q", "-f", "qcow2", "a.qcow2", "1M").out == ""
    assert os.path.exists("a.qcow2")


def test_the_suffix_decides(folder):
    assert "fmt=qcow2 " in imgtk("create", "a.qcow2", "1M").out
    assert "fmt=raw " in imgtk("create", "a.img", "1M").out
    assert "fmt=raw " in imgtk("create", "-f", "raw", "b.qcow2", "1M").out


def test_a_relative_backing_name_counts_from_the_new_image(folder):
    os.mkdir("sub")
    out = imgtk("create", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", "--references=any", "sub/a.qcow2").out
    assert "size=10485760 backing_file=../base.qcow2" in out
    imgtk_fails("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "sub/b.qcow2", match="sub/base.qcow2")


def test_a_backing_file_needs_its_format(folder):
    result = imgtk("create", "-f", "qcow2", "-b", "base.qcow2", "a.qcow2", code=1)
    assert result.err == ("imgtk: a.qcow2: Backing file specified without backing format\n"
                          "Detected format of qcow2.\n")
    assert not os.path.exists("a.qcow2")


def test_the_size_as_an_option(folder):
    ours = imgtk("create", "-f", "vmdk", "-o", "size=3M", "a.vmdk").out
    assert "virtual size: 3 MiB" in imgtk("info", "a.vmdk").out
    os.remove("a.vmdk")
    assert ours == qemu_img("create", "-f", "vmdk", "-o", "size=3M", "a.vmdk").out


REFUSED = [
    ("-f qcow2", "Expecting image file name"),
    ("-f qcow2 a 1M 2M", "Unexpected argument: 2M"),
    ("-f qcow2 a", "a: Image creation needs a size parameter"),
    ("-f qcow2 a abc", "Invalid image size specified"),
    ("-f qcow2 a 1Q", "Invalid image size specified"),
    ("-f foo a 1M", "Unknown file format 'foo'"),
    ("-f qcow2 -o foo=3k a 1M", "unknown option 'foo'"),
    ("-f qcow2 -o cluster-size=4k a 1M", "did you mean 'cluster_size'"),
    ("-f qcow2 -o cluster_size=3k a 1M", "Cluster size must be a power of two between 512 and"),
    ("-f qcow2 -o cluster_size=4M a 1M", "Cluster size must be a power of two between 512 and"),
    ("-f qcow2 -o compression_type=lzma a 1M", "zlib, zstd"),
    ("-f qcow2 -b nx.qcow2 -F qcow2 a", "'nx.qcow2': No such file or directory"),
    ("-f qcow2 -b base.qcow2 -F vmdk a", "base.qcow2"),
    ("-f vpc -b base.qcow2 -F qcow2 a", "a: Backing file not supported for file format 'vpc'"),
    ("-f qcow2 -o backing_file= a 1M", ""),
    ("-f qcow2 nx/a 1M", "nx/a"),
    ("-f vmdk -o size=1M a 2M", "a: The image size must be specified only once"),
    ("-f qcow2 a 9E", "it must be below 8E"),
]


@pytest.mark.parametrize("line, message", REFUSED, ids=[line for line, _ in REFUSED])
def test_refused(folder, line, message):
    result = imgtk("create", *line.split(), code=1)
    assert message in result.err.splitlines()[0], result
    assert result.err.startswith("imgtk: ")
    assert sorted(os.listdir(folder)) == ["base.qcow2"]


def test_a_failure_keeps_the_previous_file(folder):
    make_raw("a", 10, [(0, b"precious")])
    imgtk("create", "-f", "qcow2", "-o", "cluster_size=3k", "a", "1M", code=1)
    with open("a", "rb") as file:
        assert file.read(8) == b"precious"


def test_the_backing_file_is_not_overwritten(folder):
    before = digest("base.qcow2")
    imgtk("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "base.qcow2", code=1)
    assert digest("base.qcow2") == before


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"])
def test_option_help(folder, fmt):
    out = imgtk("create", "-f", fmt, "-o", "help").out
    assert out.startswith(f"Supported {fmt} options:\n")
    lines = out.splitlines()[1:]
    assert lines and all(re.match(r"  [a-z0-9_]+=<(str|size|num|bool \(on/off\))> +- .", line) for line in lines)
    theirs = set(re.findall(r"(?m)^  ([\w.-]+)=<", qemu_img("create", "-f", fmt, "-o", "help").out))
    ours = set(re.findall(r"(?m)^  ([\w.-]+)=<", out))
    not_taken = {"size", "encryption", "nocow", "extent_size_hint", "backing_file", "backing_fmt"}
    missing = {name for name in theirs - ours if not name.startswith("encrypt.")} - not_taken
    assert not missing
    assert imgtk("convert", "-O", fmt, "-o", "help").out == out


def test_defaults_of_the_configuration(folder):
    with open("imgtk.yaml", "w") as file:
        file.write("format_options:\n  qcow2: {cluster_size: 4k, lazy_refcounts: on}\n")
    env = environment(IMGTK_CONFIG="imgtk.yaml")
    out = imgtk("create", "-f", "qcow2", "-o", "lazy_refcounts=off", "a", "1M", env=env).out
    assert "cluster_size=4096 " in out and "lazy_refcounts=off" in out
    assert json.loads(qemu_img("info", "--output=json", "a").out)["cluster-size"] == 4096

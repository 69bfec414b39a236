"""Runs the conformance program on images of every installed format, in the ways that each can be laid out.

An image is made by imgtk's own writer and, where it knows the format, by qemu-img.
"""
import json
import os
import shutil
from functools import lru_cache

import pytest
from conformance.imgtk_conformance import pieces_of_everything
from imgtk_test import (BUILD, KIB, MIB, IMGTK, SANITIZE, environment, execute, imgtk, make_raw, missing,
                        qemu_img)

PROGRAM = BUILD / "tests/conformance/conformance"
UUID = "11223344-5566-7788-99aa-bbccddeeff00"

# Options that make what is written reproducible, beyond SOURCE_DATE_EPOCH.
REPRODUCIBLE = {"vdi": f"uuid={UUID}", "vpc": f"uuid={UUID},force_size=on", "vhdx": f"uuid={UUID}"}
# More layouts than the default one.
OURS = {
    "qcow2": ["cluster_size=512", "cluster_size=2M", "compat=0.10", "extended_l2=on", "preallocation=metadata",
              "refcount_bits=1", "data_file=data.img,data_file_raw=on"],
    "vdi": ["static=on"],
    "vpc": ["subformat=fixed"],
    "vhdx": ["subformat=fixed", "block_size=2M"],
    "vmdk": ["subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=streamOptimized"],
    "raw": ["preallocation=full"],
}
THEIRS = {
    "qcow2": ["cluster_size=64k", "cluster_size=512", "extended_l2=on,cluster_size=32k", "compat=0.10"],
    "vdi": ["", "static=on"],
    "vpc": ["force_size=on", "subformat=fixed,force_size=on"],
    "vhdx": ["", "subformat=fixed", "block_size=2M"],
    "vmdk": ["", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat",
             "subformat=streamOptimized"],
    "raw": [""],
}
COMPRESSED = {"qcow2": ["compression_type=zlib", "compression_type=zstd,cluster_size=4k"], "vmdk": []}


@lru_cache
def formats():
    if not IMGTK.exists():
        return {}
    found = json.loads(imgtk("formats", "--output=json").out)
    return {module["name"]: module for module in found if module["kind"] == "format" and module.get("read")}


def joined(*options):
    return ",".join(option for option in options if option)


def cases():
    for name, module in formats().items():
        if module["write"]:
            for options in ["", *OURS.get(name, [])]:
                yield name, "imgtk", joined(options, REPRODUCIBLE.get(name)), False
            for options in COMPRESSED.get(name, []) if module["compress"] else []:
                yield name, "imgtk", joined(options, REPRODUCIBLE.get(name)), True
        for options in THEIRS.get(name, []):
            yield name, "qemu-img", options, False
        for options in COMPRESSED.get(name, []):
            yield name, "qemu-img", options, True


def parameters(name, maker, options, compress):
    marks = [pytest.mark.deflate] if compress or "streamOptimized" in options else []
    words = [name, maker, options or "default"] + ["c"] * compress
    return pytest.param(name, maker, options, compress, id="-".join(words), marks=marks)


CASES = [parameters(*case) for case in cases()]


def make(folder, name, maker, options, compress):
    # A stream has whole grains.
    size = 5 * MIB + (64 * KIB if "streamOptimized" in options else 3 * 512)
    content = make_raw(folder / "content.raw", size, pieces_of_everything(size))
    words = ["convert", "-f", "raw", "-O", name] + (["-c"] if compress else []) + (["-o", options] if options else [])
    program = imgtk if maker == "imgtk" else qemu_img
    program(*words, "content.raw", "disk.image", cwd=folder, env=environment(SOURCE_DATE_EPOCH=1700000000))
    return content


def run(folder, name, options, *filters):
    if not PROGRAM.exists():
        missing(f"{PROGRAM} is not built")
    size = os.path.getsize(folder / "content.raw")
    words = [PROGRAM, name, "disk.image", "content.raw", "-s", size, *filters]
    if options:
        words += ["-o", options]
    result = execute(words, cwd=folder, env=environment(SOURCE_DATE_EPOCH=1700000000), timeout=300, code=None)
    assert result.code == 0, result
    assert "[       OK ]" in result.err + result.out or "[  SKIPPED ]" in result.err + result.out, result
    return result


def test_every_format_is_tested():
    assert formats().keys() >= {"raw", "qcow2"}, "the modules are not found"


@pytest.mark.threads
@pytest.mark.parametrize("name, maker, options, compress", CASES)
def test_conforms(tmp_path, name, maker, options, compress):
    """On the thread sanitizer's build the cases that have threads alone."""
    make(tmp_path, name, maker, options, compress)
    filters = ["-t", "threads*"] if SANITIZE == "thread" else []
    run(tmp_path, name, options if maker == "imgtk" else REPRODUCIBLE.get(name), *filters)


@pytest.mark.parametrize("name", list(formats()))
def test_an_empty_disk(tmp_path, name):
    """Nothing allocated: one MiB of zeroes."""
    make_raw(tmp_path / "content.raw", MIB)
    if formats()[name]["write"]:
        options = REPRODUCIBLE.get(name, "")
        imgtk("convert", "-f", "raw", "-O", name, *(["-o", options] if options else []), "content.raw", "disk.image",
              cwd=tmp_path)
    else:
        qemu_img("convert", "-f", "raw", "-O", name, "content.raw", "disk.image", cwd=tmp_path)
    run(tmp_path, name, REPRODUCIBLE.get(name))


@pytest.mark.parametrize("name", list(formats()))
def test_info_and_check_of_the_program(tmp_path, name):
    make(tmp_path, name, "imgtk" if formats()[name]["write"] else "qemu-img", REPRODUCIBLE.get(name, ""), False)
    info = json.loads(imgtk("info", "--output=json", "disk.image", cwd=tmp_path).out)
    assert info["format"] == name
    assert info["virtual-size"] == os.path.getsize(tmp_path / "content.raw")
    assert "virtual size: 5" in imgtk("info", "disk.image", cwd=tmp_path).out
    imgtk("check", "disk.image", cwd=tmp_path, code=0 if formats()[name]["check"] else 63)
    assert shutil.which("qemu-img") is None or "identical" in qemu_img(
        "compare", "-f", "raw", "-F", name, "content.raw", "disk.image", cwd=tmp_path).out

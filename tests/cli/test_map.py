"""imgtk map prints qemu-img's list, and the forms that other tools print."""
import json

import pytest

from imgtk_test import KIB, MIB, TIB, imgtk, imgtk_fails, make_image, make_raw, qemu_img

WRITES = ["write 1M 64k", "write 2M 128k", "write -z 4M 64k", "write 5M 4k"]


def make_chain(folder):
    make_image(folder / "base.qcow2", 10 * MIB, writes=WRITES)
    make_image(folder / "top.qcow2", None, backing="base.qcow2", backing_fmt="qcow2",
               writes=["write 1M 64k", "write -z 2M 64k"])
    qemu_img("convert", "-c", "-O", "qcow2", folder / "top.qcow2", folder / "packed.qcow2")
    make_raw(folder / "disk.raw", 3 * MIB, [(MIB, b"x" * 64 * KIB), (2 * MIB, b"y" * 4096)])


@pytest.fixture
def chain(tmp_path, fill, monkeypatch):
    """base.qcow2, top.qcow2 over it, packed.qcow2 (compressed) and disk.raw, in the working folder."""
    monkeypatch.chdir(fill(tmp_path, make_chain))
    return tmp_path


def rows(*arguments):
    return json.loads(imgtk("map", "--output=json", *arguments).out)


def without_compressed(table):
    """qemu-img 7.2 does not tell it yet, 8.2 does."""
    return [{key: value for key, value in row.items() if key != "compressed"} for row in table]


@pytest.mark.parametrize("name", ["base.qcow2", "top.qcow2", "packed.qcow2", "disk.raw"])
@pytest.mark.parametrize("part", [[], ["--start-offset=1536k"], ["--max-length=1088k"], ["-s", "2M", "-l", "1M"],
                                  ["--start-offset=20M"]], ids=" ".join)
def test_json_is_qemu_imgs(chain, name, part):
    theirs = [word.replace("-s", "--start-offset").replace("-l", "--max-length") if len(word) == 2 else word
              for word in part]
    ours = imgtk("map", "--output=json", *part, name).out
    expected = qemu_img("map", "--output=json", *theirs, name).out
    assert without_compressed(json.loads(ours)) == json.loads(expected)
    text = ours.replace(', "compressed": false', "").replace(', "compressed": true', "")
    assert text == expected, "the layout too"


@pytest.mark.parametrize("name", ["base.qcow2", "top.qcow2", "disk.raw"])
def test_human_is_qemu_imgs(chain, name):
    assert imgtk("map", name).out == qemu_img("map", name).out


def test_compressed(chain):
    assert "0x100000        0x10000         compressed      packed.qcow2\n" in imgtk("map", "packed.qcow2").out
    data = [row for row in rows("packed.qcow2") if row["data"]]
    assert data and all(row["compressed"] and "offset" not in row for row in data)


def test_jsonl(chain):
    lines = imgtk("map", "--output=jsonl", "packed.qcow2").out.splitlines()
    assert lines[0] == '{"start":0,"length":1048576,"allocated":false,"zero":true,"compressed":false}'
    assert lines[1] == '{"start":1048576,"length":65536,"allocated":true,"zero":false,"compressed":true}'
    table = [json.loads(line) for line in lines]
    assert [row["start"] + row["length"] for row in table[:-1]] == [row["start"] for row in table[1:]]
    assert table[-1]["start"] + table[-1]["length"] == 10 * MIB


def test_an_empty_image_has_one_entry(chain):
    make_raw("empty.raw", 0)
    theirs = json.loads(qemu_img("map", "--output=json", "empty.raw").out)
    assert without_compressed(rows("empty.raw")) == theirs
    assert imgtk("map", "--output=jsonl", "empty.raw").out == ""
    assert imgtk("map", "empty.raw").out == qemu_img("map", "empty.raw").out


def test_clusters_of_one_layer(chain):
    document = json.loads(imgtk("map", "--output=intervals", "top.qcow2").out)
    assert document == {"virtual_size": 10 * MIB, "cluster_bits": 16, "data_clusters": [[16, 16], [32, 32]]}
    document = json.loads(imgtk("map", "--output=clusters", "base.qcow2").out)
    assert document == {"virtual_size": 10 * MIB, "cluster_bits": 16, "data_clusters": [16, 32, 33, 80]}
    document = json.loads(imgtk("map", "--output=intervals", "disk.raw").out)
    assert document["data_clusters"] == [[16, 16], [32, 32]]


def test_clusters_of_other_sizes(chain):
    make_image("small.qcow2", MIB, options="cluster_size=4k", writes=["write 8k 12k", "write 512k 4k"])
    document = json.loads(imgtk("map", "--output=intervals", "small.qcow2").out)
    assert document == {"virtual_size": MIB, "cluster_bits": 12, "data_clusters": [[2, 4], [128, 128]]}


def test_clusters_need_no_backing_file(chain):
    (chain / "base.qcow2").unlink()
    imgtk("map", "--output=intervals", "top.qcow2")
    imgtk_fails("map", "--output=json", "top.qcow2", match="base.qcow2")


def test_a_huge_empty_image_is_one_row(chain):
    make_image("huge.qcow2", 16 * TIB)
    assert without_compressed(rows("huge.qcow2")) == [
        {"start": 0, "length": 16 * TIB, "depth": 0, "present": False, "zero": True, "data": False}]


def test_bad_arguments(chain):
    for arguments, message in [(["--output=foo", "base.qcow2"], "--output"), (["--start-offset=x", "base.qcow2"], "x"),
                               (["--max-length=-1", "base.qcow2"], "-1"), ([], "Expecting one image file name"),
                               (["base.qcow2", "top.qcow2"], "Expecting one image file name")]:
        assert message in imgtk("map", *arguments, code=1).err.splitlines()[0]


def test_output_that_cannot_be_written(chain):
    import subprocess

    from imgtk_test import IMGTK, environment
    with open("/dev/full", "w") as full:
        done = subprocess.run([IMGTK, "map", "--output=json", "base.qcow2"], stdout=full, stderr=subprocess.PIPE,
                              env=environment(), text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr

"""Internal snapshots of an image that gets another backing file, or is committed: they read as before, or it is refused."""
import pytest
from imgtk_test import KIB, MIB, digest, imgtk, imgtk_fails, make_image, qemu_img, qemu_io

SIZE = 3 * MIB
LAYOUTS = {"plain": "", "v2": "compat=0.10", "tiny": "cluster_size=512", "subclusters": "extended_l2=on,cluster_size=16k"}


def make_stack(folder, layout="plain", base_size=SIZE, later=()):
    """top over base, with a snapshot of top, before which and after which the same clusters were written."""
    make_image(folder / "base", base_size, writes=["write -P 1 0 1M", "write -P 2 1500k 300k"])
    top = make_image(folder / "top", SIZE, options=LAYOUTS[layout], backing="base", backing_fmt="qcow2",
                     writes=["write -P 3 256k 128k", "write -P 4 2M 64k"])
    qemu_img("snapshot", "-c", "s", top)
    qemu_io(top, "write -P 5 256k 128k", *later, fmt="qcow2")
    return top


def disks(folder, image):
    """The digests of the disk and of its snapshot's."""
    imgtk("convert", "-O", "raw", image, folder / "active.raw")
    imgtk("convert", "-O", "raw", "-l", "s", image, folder / "snapshot.raw")
    return digest(folder / "active.raw"), digest(folder / "snapshot.raw")


def assert_sound(*images):
    for image in images:
        qemu_img("check", "-f", "qcow2", image)
        imgtk("check", "-q", image)


def assert_refused(folder, *words, match):
    before = {path: digest(path) for path in folder.iterdir()}
    imgtk_fails(*words, match=match)
    assert {path: digest(path) for path in folder.iterdir()} == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rebase_onto_the_same_disk(tmp_path, layout):
    """In another format, shorter, and changed only where the snapshot has bytes of its own."""
    top = make_stack(tmp_path, layout)
    before = disks(tmp_path, top)
    qemu_img("convert", "-O", "raw", tmp_path / "base", tmp_path / "other")
    qemu_img("resize", "-q", "-f", "raw", "--shrink", tmp_path / "other", "1800k")
    qemu_io(tmp_path / "other", "write -P 9 256k 128k", fmt="raw")
    imgtk("rebase", "-b", "other", "-F", "raw", top)
    assert_sound(top)
    assert "backing file: other" in imgtk("info", top).out
    assert disks(tmp_path, top) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_commit_of_what_the_snapshot_has_too(tmp_path, layout):
    top = make_stack(tmp_path, layout)
    before = disks(tmp_path, top)
    imgtk("commit", top)
    assert_sound(top, tmp_path / "base")
    assert disks(tmp_path, top) == before
    qemu_io(tmp_path / "base", "read -P 5 256k 128k", "read -P 4 2M 64k", fmt="qcow2")


def test_commit_into_a_base_of_another_size(tmp_path):
    for size in (2 * MIB, 4 * MIB):
        (tmp_path / "base").unlink(missing_ok=True)
        (tmp_path / "top").unlink(missing_ok=True)
        top = make_stack(tmp_path, base_size=size)
        before = disks(tmp_path, top)
        imgtk("commit", top)
        assert_sound(top, tmp_path / "base")
        assert disks(tmp_path, top) == before


def test_no_backing_file_before_and_after(tmp_path):
    image = make_image(tmp_path / "a", SIZE, writes=["write -P 1 0 64k"])
    qemu_img("snapshot", "-c", "s", image)
    imgtk("rebase", "-b", "", image)
    assert_sound(image)


@pytest.mark.parametrize("later", ["write -P 6 700k 64k", "write -P 7 2700k 512", "write -z 1536k 64k"])
def test_commit_of_more_than_the_snapshot_has(tmp_path, later):
    top = make_stack(tmp_path, later=[later])
    assert_refused(tmp_path, "commit", top, match="a commit would change the disk of the internal snapshot with the id 1")


@pytest.mark.parametrize("write", ["write -P 9 1700k 64k", "write -P 9 2900k 4k", "write -z 0 64k"])
def test_rebase_onto_another_disk(tmp_path, write):
    top = make_stack(tmp_path)
    qemu_img("convert", "-O", "qcow2", tmp_path / "base", tmp_path / "other")
    qemu_io(tmp_path / "other", write, fmt="qcow2")
    assert_refused(tmp_path, "rebase", "-b", "other", "-F", "qcow2", top,
                   match="another backing file would change the disk of the internal snapshot with the id 1")
    assert_refused(tmp_path, "rebase", "-b", "", top, match="the internal snapshot with the id 1")


def test_snapshots_of_a_layer_between(tmp_path):
    """What is written above them changes what they take from the file below, but where they have bytes of their own."""
    make_stack(tmp_path)
    above = make_image(tmp_path / "above", SIZE, backing="top", backing_fmt="qcow2", writes=["write -P 8 256k 64k"])
    before = disks(tmp_path, tmp_path / "top")
    imgtk("commit", "-b", tmp_path / "base", above)
    assert disks(tmp_path, tmp_path / "top")[1] == before[1]
    qemu_io(above, "write -P 9 800k 4k", fmt="qcow2")
    assert_refused(tmp_path, "commit", "-b", tmp_path / "base", above, match="top: a commit would change")
    imgtk("commit", above)
    assert_sound(above, tmp_path / "top")


def test_a_common_file_is_not_read(tmp_path):
    """What the old and the new backing file take from one file below is the same, which a lost file shows."""
    make_image(tmp_path / "deep", SIZE, writes=["write -P 1 0 3M"])
    for name in ("base", "other"):
        make_image(tmp_path / name, SIZE, backing="deep", backing_fmt="qcow2", writes=["write -P 2 64k 64k"])
    top = make_image(tmp_path / "top", SIZE, backing="base", backing_fmt="qcow2")
    qemu_img("snapshot", "-c", "s", top)
    whole = (tmp_path / "deep").read_bytes()
    (tmp_path / "deep").write_bytes(whole[:len(whole) - MIB] + bytes(MIB))
    before = disks(tmp_path, top)
    imgtk("rebase", "-b", "other", "-F", "qcow2", top)
    assert_sound(top)
    assert disks(tmp_path, top) == before

"""Allocations that fail, one after the other: the right result, or one line and the previous file."""
import pytest
from imgtk_test import SANITIZE, TESTS, digest, environment, execute, imgtk, qemu_img, tool
from faults.test_faults import assert_one_line, files, make_source, words_for


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The library that is preloaded."""
    if SANITIZE:
        pytest.skip("a sanitizer brings its own allocator")
    library = tmp_path_factory.mktemp("shim") / "nomem.so"
    execute([tool("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, TESTS / "faults/nomem.c"])
    return library


class Conversion:
    """From an image of one kind to one of another, in a folder of its own."""

    def __init__(self, shim, folder, source, target):
        self.shim, self.target = shim, target
        self.log, self.work, self.image = folder / "log", folder / "work", folder / "source.image"
        self.raw = make_source(folder)
        self.work.mkdir()
        imgtk(*words_for(source, self.raw, self.image))

    def run(self, at):
        (self.work / "target").write_bytes(b"the previous file")
        env = environment(LD_PRELOAD=self.shim, NOMEM_AT=at, NOMEM_LOG=self.log, SOURCE_DATE_EPOCH=1700000000)
        return imgtk(*words_for(self.target, self.image, "target"), code=None, cwd=self.work, env=env, timeout=60)

    def assert_same_disk(self, at, good):
        """Without memory for the compressor, a cluster is written as it is."""
        if digest(self.work / "target") != good:
            fmt = self.target.split("-")[0]
            compared = qemu_img("compare", "-f", "raw", "-F", fmt, self.raw, "target", cwd=self.work)
            assert "identical" in compared.out, at


@pytest.mark.slow
@pytest.mark.parametrize("source, target", [("qcow2-c", "vmdk"), ("vmdk-stream", "qcow2"), ("vmdk", "qcow2-c"),
                                            ("qcow2", "vmdk-stream")])
def test_every_allocation_fails_once(tmp_path, shim, source, target):
    conversion = Conversion(shim, tmp_path, source, target)
    assert conversion.run(0).code == 0
    good, calls = digest(conversion.work / "target"), int(conversion.log.read_text())
    failed = 0
    for at in range(1, calls + 1):
        result = conversion.run(at)
        assert files(conversion.work) == ["target"], (at, result)
        if result.code == 0:
            conversion.assert_same_disk(at, good)
            continue
        failed += 1
        assert_one_line(result)
        assert (conversion.work / "target").read_bytes() == b"the previous file", (at, result)
    assert failed > calls // 2

"""The packages as a user gets them: built twice from the source archive, looked at, and installed where nothing is."""
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from imgtk_test import CI, FIXTURES, ROOT, digest, execute, tool
from packages.root import Root

VERSION = re.search(r"project\(imgtk VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)

# What each package depends on beside libimgtk1 and the C library.
DEPENDS = {
    "imgtk": set(),
    "libimgtk1": {"libyaml-0-2", "libjansson4", "libssl3"},
    "imgtk-format-qcow2": {"libdeflate0", "libzstd1"},
    "imgtk-format-vmdk": {"libdeflate0", "libzstd1"},
    "imgtk-format-vpc": set(),
    "imgtk-format-vhdx": set(),
    "imgtk-format-vdi": set(),
    "imgtk-storage-nbd": {"libnbd0"},
    "nbdkit-plugin-imgtk": {"nbdkit"},
}
HTTP = (ROOT / "storage/http").is_dir()
if HTTP:
    DEPENDS["imgtk-storage-http"] = {"libcurl4"}


def environment(**changes):
    """For builds: nothing of the caller's that would make two of them different, or equal by a cache."""
    drop = ("SOURCE_DATE_EPOCH", "CFLAGS", "LDFLAGS", "CMAKE_C_COMPILER_LAUNCHER")
    return {**{name: value for name, value in os.environ.items() if name not in drop}, "LC_ALL": "C", **changes}


@pytest.fixture(scope="module")
def work():
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="imgtk-packages-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def archive(work):
    execute([ROOT / "conf/package/archive", VERSION, work / "source"], env=environment())
    return work / f"source/imgtk-{VERSION}.tar.xz"


def unpack(archive, folder):
    folder.mkdir(parents=True)
    execute([tool("tar"), "-C", folder, "-xf", archive])
    return folder / f"imgtk-{VERSION}"


def build(archive, folder, umask="022", **changes):
    """All packages, built from the archive in a folder; by name."""
    source = unpack(archive, folder)
    script = (f"umask {umask} && cmake --preset package --log-level=WARNING -DIMGTK_WERROR={'ON' if CI else 'OFF'} && "
              f"cmake --build build-package && cmake --build build-package --target package")
    execute(["sh", "-c", script], cwd=source, env=environment(**changes), timeout=1200)
    return {path.name.split("_")[0]: path for path in (source / "build-package/packages").glob("*.deb")}


@pytest.fixture(scope="module")
def packages(archive, work):
    return build(archive, work / "one")


@pytest.fixture(scope="module")
def contents(packages, work):
    """What is in each package, unpacked: its folder by name."""
    folders = {name: work / "unpacked" / name for name in packages}
    (work / "unpacked").mkdir()
    for name, folder in folders.items():
        execute([tool("dpkg-deb"), "--raw-extract", packages[name], folder])
    return folders


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")
            if (path.is_file() or path.is_symlink()) and "DEBIAN" not in path.parts}


def field(deb, name):
    return execute([tool("dpkg-deb"), "--field", deb, name]).out.strip()


# ---- The archive ----

def test_the_archive_makes_itself(archive, work):
    again = unpack(archive, work / "again")
    execute([again / "conf/package/archive", VERSION, work / "again"], env=environment())
    assert digest(work / "again" / archive.name) == digest(archive)


def test_the_versions_agree():
    changelog, spec = (ROOT / "conf/package/changelog").read_text(), (ROOT / "conf/rpm/imgtk.spec").read_text()
    assert changelog.startswith(f"imgtk ({VERSION}) ")
    assert re.search(rf"(?m)^Version: +{re.escape(VERSION)}$", spec)


# ---- The packages ----

def test_two_builds_have_the_same_bytes(packages, archive, work):
    """In a folder whose name is longer and has spaces, by one whose files are nobody else's, far away."""
    others = build(archive, work / "another folder with a long name", umask="077", TZ="Pacific/Auckland", LC_ALL="C.UTF-8",
                   HOME=str(work))
    assert sorted(others) == sorted(packages)
    assert [name for name in packages if digest(packages[name]) != digest(others[name])] == []


def test_every_part_has_its_package(packages):
    assert packages.keys() == DEPENDS.keys() | {"libimgtk-dev"}
    assert {field(deb, "Version") for deb in packages.values()} == {VERSION}


@pytest.mark.parametrize("name", DEPENDS)
def test_only_what_needs_a_library_depends_on_it(packages, name):
    depends = field(packages[name], "Depends")
    found = {word.split()[0] for word in depends.split(", ")}
    assert found - {"libimgtk1", "libc6"} == DEPENDS[name]
    assert name == "libimgtk1" or f"libimgtk1 (>= {VERSION})" in depends


def test_every_file_is_in_one_package(contents):
    owners = {}
    for name, folder in contents.items():
        for file in files_of(folder):
            owners.setdefault(file, []).append(name)
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}
    for module in ("qcow2", "vmdk", "vpc", "vhdx", "vdi"):
        [owner] = [names[0] for file, names in owners.items() if file.endswith(f"/imgtk/{module}.so")]
        assert owner == f"imgtk-format-{module}"
    assert owners["usr/bin/imgtk"] == owners["etc/imgtk/imgtk.yaml"] == ["imgtk"]
    pages = {file: names[0] for file, names in owners.items() if "/man/man" in file and "imgtk-conformance" not in file}
    assert pages.pop("usr/share/man/man1/nbdkit-imgtk-plugin.1.gz") == "nbdkit-plugin-imgtk"
    assert set(pages.values()) == {"imgtk"} and "usr/share/man/man1/imgtk-convert.1.gz" in pages


def test_the_documents_are_where_they_are_named(contents):
    """The links of the manual and of the documents that lie beside each other."""
    cli, dev = (files_of(contents[name]) for name in ("imgtk", "libimgtk-dev"))
    assert {f"usr/share/doc/imgtk/{name}" for name in ("checksum.md", "migration.md", "formats/qcow2.md", "storage/nbd.md",
                                                       "pictures/sample.svg", "performance/data.svg")} <= cli
    assert {f"usr/share/doc/libimgtk-dev/{name}" for name in ("writing-a-format.md", "examples/mini/mini.c", "abi.md")} <= dev


def test_the_development_files_are_whole(contents):
    files = files_of(contents["libimgtk-dev"])
    names = {Path(file).name for file in files}
    assert {header.name for header in (ROOT / "core/include/imgtk").glob("*.h")} <= names
    assert {"imgtk.pc", "imgtkConfig.cmake", "ImgtkModule.cmake", "libimgtk.so"} <= names


def test_lintian_finds_nothing(packages):
    """But of two hints: on a module that calls no function that could be fortified, and a manual page for a plugin."""
    result = execute([tool("lintian"), "--profile", "debian", "--display-info", "--allow-root", "--fail-on", "none",
                      "--suppress-tags", "hardening-no-fortify-functions,spare-manual-page", *packages.values()],
                     env=environment(), timeout=600)
    assert result.out == ""


# ---- Installed ----

@pytest.fixture
def root(packages, work):
    given = work / "given"
    given.mkdir(exist_ok=True)
    for path in [*packages.values(), FIXTURES / "debian.qcow2", FIXTURES / "debian.sha256"]:
        shutil.copy(path, given)
    with Root(given) as found:
        yield found


def test_a_format_comes_and_goes_with_its_package(root, packages):
    image, out = "/tmp/given/debian.qcow2", "/tmp/debian.raw"
    convert = ["/usr/bin/imgtk", "convert", "-O", "raw", image, out]
    refused = f"imgtk: {image}: it looks like qcow2, which no installed module reads: install imgtk-format-qcow2, "
    root.install(packages["libimgtk1"], packages["imgtk"])
    assert refused in root.run(*convert, code=1).err
    root.install(packages["imgtk-format-qcow2"])
    root.run(*convert)
    root.run("sh", "-c", "cd /tmp && sha256sum -c given/debian.sha256")
    root.run("dpkg", "--remove", "imgtk-format-qcow2")
    assert refused in root.run(*convert, code=1).err
    assert "raw" in root.run("/usr/bin/imgtk", "formats").out


def test_all_packages_together(root, packages):
    root.install(*packages.values())
    formats = root.run("/usr/bin/imgtk", "formats").out
    for word in ["raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi", "nbd"]:
        assert re.search(rf"(?m)^{word}\b", formats), formats
    root.run("nbdkit", "--dump-plugin", "imgtk")
    root.run("dpkg", "--purge", *packages)
    assert root.run("sh", "-c", "ls -d /usr/bin/imgtk /etc/imgtk /usr/lib/*/imgtk /usr/lib/*/libimgtk*", code=None).out == ""


# ---- RPM ----

def test_the_rpm_packages_build(archive, work, packages):
    """On Debian the names of what is needed to build are unknown, so that it is not asked whether it is there."""
    without = [] if HTTP else ["--without", "http"]
    execute([tool("rpmbuild"), *without, "--nodeps", "--define", f"_topdir {work}/rpm", "-ta", archive], env=environment(),
            timeout=1200)
    built = {path.name.split(f"-{VERSION}")[0] for path in (work / "rpm").rglob("*.rpm")}
    other = {"imgtk-libs": "libimgtk1", "imgtk-devel": "libimgtk-dev", "nbdkit-imgtk-plugin": "nbdkit-plugin-imgtk"}
    assert {other.get(name, name) for name in built} == packages.keys()

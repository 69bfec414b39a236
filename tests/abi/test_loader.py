"""The module loader: good modules work, a bad one is reported, skipped, and keeps nothing else from loading."""
import json
import os
import shutil

import pytest

from imgtk_test import IMGTK, KIB, MODULES, ROOT, TESTS, environment, execute, imgtk, imgtk_fails, tool

SOURCE = TESTS / "abi/modules/tiny.c"
XOR = TESTS / "abi/modules/xor.c"


def build(path, *flags, source=SOURCE):
    """Compiles a module with the public headers alone."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    execute([tool("cc"), "-std=c11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "core/include",
             *flags, "-o", path, source])
    path.chmod(0o755)
    return path


def modules_of(*folders, env=None):
    """What `imgtk formats` tells of modules in these folders: by path."""
    path = ":".join(str(folder) for folder in folders)
    result = imgtk("formats", "--output=json", env=env or environment(IMGTK_MODULE_PATH=path))
    return {module["path"]: module for module in json.loads(result.out)}


def skipped(path, **options):
    module = modules_of(path.parent, **options)[str(path)]
    assert module["name"] == path.stem
    return module["skipped"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "modules"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"TINYDISK" + (100 * KIB).to_bytes(8, "little"))
    return path


def converts(image, folder, *options):
    target = image.parent / "out"
    imgtk("convert", *options, "-O", "raw", image, target, env=environment(IMGTK_MODULE_PATH=folder))
    assert target.read_bytes() == b"x" * 100 * KIB


def test_good_module(folder, image):
    path = build(folder / "tiny.so")
    module = modules_of(folder)[str(path)]
    assert module["name"] == "tiny" and module["description"] == "a tiny format" and module["version"] == "1.0"
    assert "skipped" not in module and module["write"] is False
    converts(image, folder)
    converts(image, folder, "-f", "tiny")


@pytest.mark.parametrize("flag", ["OLD_TABLE", "LARGE_TABLE"])
def test_other_minor_versions_work(folder, image, flag):
    path = build(folder / "tiny.so", f"-D{flag}")
    assert "skipped" not in modules_of(folder)[str(path)]
    converts(image, folder, "-f", "tiny")


@pytest.mark.parametrize("flags, reason", [
    (["-DWITHOUT_READ"], "missing op 'read'"),
    (["-DHALF_PREPARED"], "missing op 'write_prepared'"),
    (["-DNO_TABLE"], "its imgtk_driver_v1() returns nothing"),
    (["-DSYMBOL=imgtk_driver_v2"], "built for another ABI: version 2, this is version 1"),
    (["-DSYMBOL=other_driver"], "not a module: it exports neither imgtk_driver_v1 nor imgtk_storage_v1"),
    (['-DNAME="other"'], "it calls itself 'other', which its file name does not"),
    (["-DSMALL_TABLE"], "too few for the required ops"),
])
def test_bad_modules_are_told_apart(folder, image, flags, reason):
    path = build(folder / "bad.so", *([] if "NAME" in flags[0] else ['-DNAME="bad"']), *flags)
    good = build(folder / "tiny.so")
    assert reason in skipped(path)
    assert "skipped" not in modules_of(folder)[str(good)]
    converts(image, folder)
    imgtk_fails("info", "-f", "bad", image, match=r"Unknown file format 'bad': .*bad\.so: ",
                env=environment(IMGTK_MODULE_PATH=folder))


def test_digest(folder, tmp_path):
    """Found by its name alone, in the folder "digest"; elsewhere it is told what is wrong."""
    path = build(folder / "digest/xor.so", source=XOR)
    assert modules_of(folder)[str(path)] == {"name": "xor", "path": str(path), "kind": "digest",
                                             "description": "exclusive or", "version": "1.0"}
    (tmp_path / "disk").write_bytes(bytes(range(256)) * 2 + b"\x5a" * 511 + b"\x33")
    env = environment(IMGTK_MODULE_PATH=folder)
    assert imgtk("checksum", "--flat", "-a", "xor", tmp_path / "disk", env=env).out[:4] == f"{0x5a ^ 0x33:02x}  "
    assert skipped(build(folder / "xor.so", source=XOR)) == "a digest: it belongs into the folder 'digest' beside it"
    misplaced = build(folder / "digest/tiny.so")
    assert modules_of(folder)[str(misplaced)]["skipped"] == "not a digest"


def test_bad_digest(folder, image):
    path = build(folder / "digest/xor.so", "-DSMALL_TABLE", source=XOR)
    imgtk_fails("checksum", "-a", "xor", "-f", "raw", image, env=environment(IMGTK_MODULE_PATH=folder),
                match=rf"Unknown digest 'xor': {path}: its table has \d+ bytes, too few for the required ops")


def test_text_is_no_module(folder, image):
    path = folder / "text.so"
    path.write_text("not a library")
    build(folder / "tiny.so")
    assert skipped(path) == "not a module: no ELF library"
    converts(image, folder)


def test_library_cut_short(folder, image):
    whole = build(folder / "tiny.so").read_bytes()
    path = folder / "cut.so"
    for length in [4, 63, 64, 200, 1000, 4096, 8192, 12288]:
        assert length < len(whole)
        path.write_bytes(whole[:length])
        assert f"not a whole library: it ends at byte {length}" == skipped(path)
    converts(image, folder)


def test_library_of_another_machine(folder, image):
    whole = bytearray(build(folder / "tiny.so").read_bytes())
    whole[18:20] = b"\xff\x7f"
    path = folder / "alien.so"
    path.write_bytes(whole)
    assert "cannot be loaded: " in skipped(path)
    converts(image, folder)


def test_missing_library(folder):
    source = folder.parent / "needs.c"
    source.write_text("void nowhere_to_be_found(void); void imgtk_driver_v1(void); "
                      "void imgtk_driver_v1(void) { nowhere_to_be_found(); }")
    path = build(folder / "needs.so", source=source)
    assert "nowhere_to_be_found" in skipped(path)


def test_duplicate_name(tmp_path, image):
    first = build(tmp_path / "first/tiny.so")
    second = build(tmp_path / "second/tiny.so")
    found = modules_of(tmp_path / "first", tmp_path / "second")
    assert "skipped" not in found[str(first)]
    assert found[str(second)]["skipped"] == f"duplicate name: {first} is used"
    converts(image, f"{tmp_path}/first:{tmp_path}/second", "-f", "tiny")


def test_module_named_as_a_built_in(folder):
    path = build(folder / "raw.so", '-DNAME="raw"')
    assert skipped(path) == "duplicate name: (built in) is used"


@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_module_that_others_can_write(folder, image, mode):
    path = build(folder / "tiny.so")
    path.chmod(mode)
    assert f"it can be written by others (mode 0{mode:o})" == skipped(path)
    imgtk_fails("info", "-f", "tiny", image, match="can be written by others",
                env=environment(IMGTK_MODULE_PATH=folder))


def test_folder_that_others_can_write(folder):
    path = build(folder / "tiny.so")
    folder.chmod(0o757)
    assert "its folder can be written by others (mode 0757)" == skipped(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_other_users(folder):
    path = build(folder / "tiny.so")
    os.chown(path, 12345, 0)
    assert skipped(path) == "it belongs to user 12345, not to root or to the user who runs this"
    os.chown(path, 0, 0)
    os.chown(folder, 12345, 0)
    assert skipped(path) == "its folder belongs to user 12345, not to root or to the user who runs this"


@pytest.mark.skipif(os.geteuid() != 0, reason="the rule is root's alone")
def test_group_that_can_write_roots_module(folder):
    path = build(folder / "tiny.so")
    os.chown(path, 0, 12345)
    path.chmod(0o775)
    assert "can be written by others" in skipped(path)


def test_disabled_module(folder, image, tmp_path):
    path = build(folder / "tiny.so")
    config = tmp_path / "imgtk.yaml"
    config.write_text("disabled_modules: [tiny]\n")
    env = environment(IMGTK_MODULE_PATH=folder, IMGTK_CONFIG=config)
    assert skipped(path, env=env) == "disabled by the configuration"
    imgtk_fails("info", "-f", "tiny", image, match="disabled by the configuration", env=env)


def test_folder_of_the_configuration(folder, tmp_path):
    path = build(folder / "tiny.so")
    config = tmp_path / "imgtk.yaml"
    config.write_text(f"module_dirs: [{folder}]\n")
    found = modules_of(env=environment(IMGTK_MODULE_PATH=None, IMGTK_CONFIG=config))
    assert "skipped" not in found[str(path)]


def test_named_format_loads_that_module_alone(folder, image, tmp_path):
    build(folder / "tiny.so")
    mark = tmp_path / "loaded"
    build(folder / "loud.so", '-DNAME="loud"', f'-DLOUD="{mark}"')
    converts(image, folder, "-f", "tiny")
    assert not mark.exists()
    modules_of(folder)
    assert mark.exists()


@pytest.mark.unsanitized
@pytest.mark.parametrize("words", [["info", "{image}"], ["convert", "{image}", "{image}.qcow2"], ["create", "{image}.img", "1M"]])
def test_network_modules_are_loaded_for_their_names_only(tmp_path, words):
    """Their libraries take longer to load than such a command runs."""
    (tmp_path / "image").write_bytes(bytes(KIB))
    words = [word.format(image=tmp_path / "image") for word in words]
    result = execute([tool("strace"), "-f", "-e", "trace=openat", IMGTK, *words])
    assert "/qcow2.so" in result.err
    assert "/nbd.so" not in result.err and "/http.so" not in result.err


def test_name_of_a_format_is_no_path(folder, image, tmp_path):
    mark = tmp_path / "loaded"
    build(tmp_path / "elsewhere/loud.so", '-DNAME="loud"', f'-DLOUD="{mark}"')
    for name in ["../elsewhere/loud", f"{tmp_path}/elsewhere/loud", "", ".", "x" * 5000]:
        imgtk_fails("info", "-f", name, image, match="Unknown file format",
                    env=environment(IMGTK_MODULE_PATH=folder))
    assert not mark.exists()


@pytest.fixture
def overlay(tmp_path, image):
    """Makes an overlay that records a format; and the environment in which modules are found that know tiny too."""
    modules = tmp_path / "all"
    shutil.copytree(MODULES, modules)
    build(modules / "tiny.so")

    def make(backing_format):
        imgtk("create", "-u", "-f", "qcow2", "-b", image, "-F", backing_format, tmp_path / "overlay.qcow2", 100 * KIB)
        return tmp_path / "overlay.qcow2"

    return make, environment(IMGTK_MODULE_PATH=modules)


def test_an_image_may_record_any_format_that_is_there(overlay, tmp_path):
    make, env = overlay
    imgtk("convert", "-O", "raw", make("tiny"), tmp_path / "out", env=env)
    assert (tmp_path / "out").read_bytes() == b"x" * 100 * KIB


@pytest.mark.unsanitized
def test_an_image_names_no_module(overlay):
    """What it records is compared with the names of formats, and no part of a path that is tried."""
    make, env = overlay
    result = execute([tool("strace"), "-f", IMGTK, "map", make("nbd")], code=1, env=env)
    assert "Unknown file format 'nbd'" in result.err and "/nbd.so" not in result.err


def test_unknown_format_lists_the_known_ones(image):
    imgtk_fails("info", "-f", "nosuch", image, match=r"Unknown file format 'nosuch'.*qcow2.*imgtk-format-nosuch")


def test_every_module_of_the_build_is_usable():
    found = modules_of(MODULES)
    built = sorted(MODULES.glob("*.so"))
    assert built, f"no modules in {MODULES}, built with {IMGTK}"
    assert [str(path) for path in built if "skipped" in found[str(path)]] == []


def test_no_image_is_raw_because_its_module_is_missing(tmp_path):
    """Without any module, what plainly belongs to one is refused, and the package is named."""
    for form in ("qcow2", "vmdk", "vhdx", "vdi", "vpc"):
        options = ["-o", "subformat=fixed"] if form == "vpc" else []
        imgtk("create", "-q", "-f", form, *options, tmp_path / form, "1M")
        empty = environment(IMGTK_MODULE_PATH=tmp_path / "none")
        imgtk_fails("info", tmp_path / form, match=f"it looks like {form}, .*: install imgtk-format-{form}, or", env=empty)
        assert "file format: raw" in imgtk("info", "-f", "raw", tmp_path / form, env=empty).out


def test_the_package_of_a_format_is_told_by_each_of_its_names(tmp_path):
    """By core, since a module that is not there can tell nothing."""
    (tmp_path / "none").mkdir()
    empty = environment(IMGTK_MODULE_PATH=tmp_path / "none")
    formats = [module for module in modules_of(MODULES).values() if module["kind"] == "format" and module["name"] != "raw"]
    assert formats
    for module in formats:
        for name in [module["name"], *module.get("aliases", [])]:
            imgtk_fails("create", "-f", name, tmp_path / "x", "1M", env=empty,
                        match=f"'{name}': install imgtk-format-{module['name']} ")


def test_a_module_that_cannot_be_used_is_not_proposed_for_installation(tmp_path, folder):
    imgtk("create", "-q", "-f", "qcow2", tmp_path / "disk", "1M")
    (folder / "qcow2.so").write_text("not a library")
    result = imgtk_fails("info", tmp_path / "disk", env=environment(IMGTK_MODULE_PATH=folder),
                         match=r"it looks like qcow2, and the module .*/qcow2\.so cannot be used: not a module")
    assert "install" not in result.err


def test_a_file_that_begins_like_a_scheme_is_a_file(tmp_path):
    imgtk_fails("info", "nbdisk.raw", match="Could not open 'nbdisk.raw': No such file or directory$", cwd=tmp_path)


@pytest.mark.parametrize("name, package", [("nbd://localhost/disk", "nbd"), ("[ nbdkit null ]", "nbd"),
                                           ("https://localhost/disk", "http")])
def test_a_storage_that_is_missing_is_named(tmp_path, name, package):
    imgtk_fails("info", name, match=f"no usable module opens such names: install imgtk-storage-{package}$",
                env=environment(IMGTK_MODULE_PATH=tmp_path / "none"))

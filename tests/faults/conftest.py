"""What the tests of faults share."""
import pytest
from imgtk_test import SANITIZE, TESTS, execute, tool


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The library that is preloaded, so that calls of the operating system fail or never return."""
    if SANITIZE:
        pytest.skip("a sanitizer must be the first library")
    library = tmp_path_factory.mktemp("shim") / "faulty.so"
    execute([tool("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, TESTS / "faults/faulty.c",
             "-ldl"])
    return library

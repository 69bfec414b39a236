"""What the tests of the interfaces share."""
import pytest

from imgtk_test import BUILD, environment, execute, tool


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder under which the build is installed, as packages are."""
    root = tmp_path_factory.mktemp("root", numbered=True)
    root.chmod(0o755)
    execute([tool("cmake"), "--install", BUILD], env=environment(DESTDIR=root))
    return root

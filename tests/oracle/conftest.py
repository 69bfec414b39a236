"""Fixtures of the tests that have servers."""
import pytest

from imgtk_test import tool
from nbd_server import Server


@pytest.fixture
def serve(tmp_path):
    """serve(*words): runs a server that listens on tmp_path / "socket"; its URI."""
    servers = []

    def start(*words):
        servers.append(Server(tmp_path / "socket", words))
        return servers[-1].uri

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def nbdkit(tmp_path, serve):
    """nbdkit(*words): an export; its URI."""
    return lambda *words: serve(tool("nbdkit"), "-f", "-U", tmp_path / "socket", *words)

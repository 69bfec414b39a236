"""The inputs behind an HTTP server on the loopback."""
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from http_server import Nginx  # noqa: E402


def program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Website:
    """A context manager that gives the URL of the folder that holds them."""

    def __init__(self, paths, folder):
        self.paths, self.folder, self.server = paths, folder / "served", None

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.server = Nginx(self.folder, program("nginx"), program("openssl"))
        for path in self.paths:
            (self.server.www / path.name).symlink_to(path.resolve())
        return self.server.url("").rstrip("/")

    def __exit__(self, *_):
        self.server.end()
        shutil.rmtree(self.folder)

"""Options of the Python tests."""
import signal
import subprocess
import zlib

import pytest


def pytest_configure(config):
    """A run in the background inherits these as ignored, and so would the programs whose answer to them is tested."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_addoption(parser):
    parser.addoption("--sample", type=int, default=1, metavar="N",
                     help="of the cases of a parametrized test run the first and one in N, the same ones every time")


@pytest.fixture(scope="session")
def fill(tmp_path_factory):
    """
    fill(folder, make): puts into the folder what make(place) makes. That runs once and is copied from then on, holes
    included, since a copy takes less than one start of qemu-img.
    """
    places = {}

    def copy(folder, make):
        if make not in places:
            place = tmp_path_factory.mktemp(make.__name__)
            make(place)
            places[make] = place
        subprocess.run(["cp", "-a", f"{places[make]}/.", folder], check=True)
        return folder

    return copy


def pytest_collection_modifyitems(config, items):
    every = config.getoption("--sample")
    seen, chosen, left = set(), [], []
    for item in items:
        function = item.nodeid.partition("[")[0]
        # Not each Nth: that could pick the same value of an inner parameter every time.
        take = function not in seen or zlib.crc32(item.nodeid.encode()) % every == 0
        seen.add(function)
        (chosen if take else left).append(item)
    config.hook.pytest_deselected(items=left)
    # What takes long comes first, so that no worker is left alone with it at the end.
    items[:] = sorted(chosen, key=lambda item: item.get_closest_marker("slow") is None)

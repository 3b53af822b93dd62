"""What every test gets."""

import os
import subprocess

import pytest
from hypothesis import settings

if not os.environ.get("CI"):  # there hypothesis throws the same dice in each run; --hypothesis-profile=default has 100
    settings.register_profile("by hand", max_examples=50)
    settings.load_profile("by hand")

LONG = {"torture", "crash", "hosts", "examples", "web"}  # folders of tests that start many processes, or wait


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that nobody waits for it in the end."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(scope="session")
def anyio_backend():
    """The receiver is an asyncio program; so are its tests, and the fixtures that start servers for many of them."""
    return "asyncio"


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"cannot mount: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test may log what UTF-8 cannot carry, half a surrogate for one; the report of it has to reach pytest-xdist."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report

"""What the tests of the disk, and of what stands on it, get."""

import os

import pytest

from .disk import Disk, NoCompiler


@pytest.fixture
def disk(tmp_path):
    """A disk under the folder `disk`, whose processes keep their journals elsewhere."""
    folder, work = tmp_path / "disk", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    try:
        return Disk(folder, work)
    except NoCompiler as error:
        return (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))

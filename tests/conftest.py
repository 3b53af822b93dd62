"""What every test gets."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    """The receiver is an asyncio program; so are its tests, and the fixtures that start servers for many of them."""
    return "asyncio"

"""The command `dgreceiver`, also as `python -m dgreceiver`."""

from __future__ import annotations

import sys

EXTRA = ("httptools", "httpx", "pydantic_settings", "rich", "typer")


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from .cli.main import app
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in EXTRA:
            raise
        sys.exit('the command line needs more than the library; write: pip install "dgreceiver[serve]"')
    app()


if __name__ == "__main__":
    main()

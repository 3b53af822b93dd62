"""Where a receiver stands within an app: a path, and all below it."""

from __future__ import annotations

from starlette.types import Scope

from ..errors import SetupError
from ..web.http import path_below


class Place:
    """A path that an app gives away.

    Raises: SetupError unless it begins with a slash and is more than that.
    """

    def __init__(self, path: str) -> None:
        if not path.startswith("/") or not path.strip("/"):
            raise SetupError(f'path={path!r} is no path to give away; write one such as path="/deepgram"')
        self._path = path.rstrip("/")

    def __contains__(self, path: str) -> bool:
        return path == self._path or path.startswith(self._path + "/")

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for here. One look is enough for most, so that the app's own routes lose no time."""
        return self._path in scope["path"] and path_below(scope) in self

    def below(self, scope: Scope) -> Scope:
        """The scope as for an app that is mounted here; `path` includes `root_path`, though a proxy took that off."""
        root = scope.get("root_path", "").rstrip("/")
        return {**scope, "root_path": root + self._path, "path": root + path_below(scope)}

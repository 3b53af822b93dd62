"""What the environment says: each setting is the option of its name, as DGRECEIVER_NAME is --name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..errors import SetupError

PREFIX = "DGRECEIVER_"


class Settings(BaseSettings):
    """What is neither said nor in the environment is as it stands here, or as the app has it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080  # one that Deepgram calls
    drain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 120.0  # seconds
    reuse_port: bool = False
    inbox: str | None = None
    name: str | None = None
    public_url: str | None = None


def settings(**options: str | float | None) -> Settings:
    """The environment's settings, and before them the options that were given.

    Raises: SetupError for what cannot be read; it names the setting, not the value.
    """
    try:
        return Settings.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        [first, *_] = error.errors()
        name = "_".join(map(str, first["loc"]))
        raise SetupError(f"--{name.replace('_', '-')} or {PREFIX}{name.upper()}: {first['msg'].lower()}") from None

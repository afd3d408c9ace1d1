"""Options that several commands have: declared once, so that they mean the same everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

if TYPE_CHECKING:
    from zonemesh.log.redis import RedisStore

P = ParamSpec("P")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

URL = "http://127.0.0.1:5681"
URL_VARIABLE = "ZONEMESH_URL"


def url_option(text: str, *, several: bool = False) -> Decorator:
    """`url`, or `urls` of which there may be several."""
    return click.option(
        "--url",
        "urls" if several else "url",
        multiple=several,
        envvar=URL_VARIABLE,
        show_envvar=True,
        default=(URL,) if several else URL,
        show_default=True,
        help=text,
    )


def timeout_option(default_s: float) -> Decorator:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for each answer.",
    )


def form_option(*forms: str, text: str | None = None) -> Decorator:
    """`form`: how the answer is printed; the first is the usual one."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help=text,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A Redis as a command line says where it is."""

    url: str
    prefix: str
    password_path: Path | None

    def store(self) -> RedisStore:
        """Connects nothing.

        Raises:
            ConfigError: The URL leads nowhere, or there is no such file.
        """
        # 0.2 s, for who needs it.
        from zonemesh.log.pools import Named  # noqa: PLC0415
        from zonemesh.log.redis import RedisStore  # noqa: PLC0415

        return RedisStore(
            self.url,
            prefix=self.prefix,
            password_path=self.password_path,
            named=Named("--redis", "--password-path"),
        )


def redis_options(run: Callable[..., None]) -> Callable[..., None]:
    """Give a command `redis`, a `Redis` or None: where logs are."""

    @click.option(
        "--redis",
        "redis_url",
        metavar="URL",
        envvar="ZONEMESH_REDIS_URL",
        show_envvar=True,
        help="The Redis that holds the log, as redis.url (or log.url) has it.",
    )
    @click.option(
        "--password-path",
        type=click.Path(path_type=Path),
        envvar="ZONEMESH_REDIS_PASSWORD_PATH",
        show_envvar=True,
        help="File with the password of that URL's user, as redis.passwordPath.",
    )
    @click.option(
        "--prefix",
        envvar="ZONEMESH_REDIS_KEY_PREFIX",
        show_envvar=True,
        default="zm",
        show_default=True,
        help="redis.keyPrefix of the mesh.",
    )
    @functools.wraps(run)
    def command(
        *args: Any, redis_url: str | None, password_path: Path | None, prefix: str, **kwargs: Any
    ) -> None:
        redis = None
        if redis_url:
            redis = Redis(url=redis_url, prefix=prefix, password_path=password_path)
        run(*args, redis=redis, **kwargs)

    return command


own_log_option = click.option(
    "--zone", metavar="NAME", help="A zone whose own log is in that Redis (its log.url)."
)

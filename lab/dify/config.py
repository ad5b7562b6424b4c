"""What the containers are told by their environment, under the release's own names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What a version of the API says is the newest app format that it reads.
DSL = {"1.14": "0.6.0", "1.15": "0.6.0", "1.16": "0.7.0", "1.17": "0.8.0"}


@dataclass(frozen=True)
class Config:
    """The environment of one process."""

    environment: Mapping[str, str]

    @staticmethod
    def read() -> "Config":
        """This process's own."""
        return Config(dict(os.environ))

    def text(self, name: str, default: str = "") -> str:
        """A value; an empty one counts, as in the real server."""
        return self.environment.get(name, default)

    def number(self, name: str, default: float) -> float:
        """A value in seconds, or a count; an empty one is the default."""
        return float(self.environment.get(name) or default)

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean, as pydantic reads one."""
        text = self.environment.get(name, "").lower()
        return text in ("1", "true", "yes", "on", "t", "y") if text else default

    def check(self) -> None:
        """Refuse what the real server does not start with.

        Raises:
            ValueError: naming the variable.
        """
        for name in ("PLUGIN_REMOTE_INSTALL_PORT", "DB_PORT", "REDIS_PORT"):
            text = self.environment.get(name, "")
            if text and not text.isdecimal():
                raise ValueError(f"{name}\n  Input should be a valid integer (input: {text!r})")

    @property
    def version(self) -> str:
        """Of the release; built into the image."""
        return self.text("DIFY_STANDIN_VERSION", "1.16.1")

    @property
    def broken(self) -> bool:
        """Whether this release migrates its database and then never comes up."""
        return self.version.endswith("-broken") or self.version == "1.17.2"

    @property
    def dsl(self) -> str:
        """The newest app format."""
        return DSL[".".join(self.version.split(".")[:2])]

    @property
    def storage(self) -> Path:
        """The folder of keys and files."""
        return Path(self.text("OPENDAL_FS_ROOT", "storage"))

    @property
    def database(self) -> dict[str, str]:
        """Connection parameters for PostgreSQL."""
        return {
            "host": self.text("DB_HOST", "localhost"),
            "port": self.text("DB_PORT", "5432"),
            "user": self.text("DB_USERNAME", "postgres"),
            "password": self.text("DB_PASSWORD"),
            "dbname": self.text("DB_DATABASE", "dify"),
        }

    @property
    def redis(self) -> str:
        """The URL of Redis."""
        return (
            f"redis://:{self.text('REDIS_PASSWORD')}@{self.text('REDIS_HOST', 'localhost')}:"
            f"{self.text('REDIS_PORT', '6379')}/{self.text('REDIS_DB', '0')}"
        )

    @property
    def broker(self) -> str:
        """The URL of Celery's broker, which has the password in it a second time."""
        return self.text("CELERY_BROKER_URL") or self.redis

    @property
    def secure_cookies(self) -> bool:
        """Whether cookies get Secure and the prefix ``__Host-``."""
        urls = (self.text("CONSOLE_WEB_URL"), self.text("CONSOLE_API_URL"))
        return all(url.startswith("https") for url in urls) and not self.text("COOKIE_DOMAIN")

"""State: rows in PostgreSQL, keys in Redis, and key files below the storage folder."""

import base64
import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import redis
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .config import Config

Row = dict[str, Any]
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - as the real one
KEY_CACHE = 24 * 3600


class PrivkeyNotFoundError(Exception):
    """The tenant's private key is not in the storage folder."""


class State:
    """What outlives a process."""

    def __init__(self, config: Config) -> None:
        """Connect to nothing yet."""
        self.config = config
        self._pooled: Any = None
        self._pool = threading.Lock()

    def use_pooled(self) -> None:
        """Use a connection that is kept, as the worker of Dify does.

        Raises:
            psycopg2.Error: the database was started anew since, and nobody looked before
                (SQLALCHEMY_POOL_PRE_PING). The next use has a new connection.
        """
        with self._pool:
            if self._pooled is None:
                self._pooled = psycopg2.connect(**self.config.database, connect_timeout=5)
            try:
                self._ping()
            except psycopg2.Error:
                self._pooled = None
                if not self.config.flag("SQLALCHEMY_POOL_PRE_PING", default=False):
                    raise
                self._pooled = psycopg2.connect(**self.config.database, connect_timeout=5)

    def _ping(self) -> None:
        with self._pooled, self._pooled.cursor() as cursor:
            cursor.execute("SELECT 1")

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        """One transaction."""
        connection = psycopg2.connect(**self.config.database, connect_timeout=5)
        try:
            with (
                connection,
                connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
            ):
                yield cursor
        finally:
            connection.close()

    def rows(self, query: str, *values: Any) -> list[Row]:
        """What a query gives."""
        with self.cursor() as cursor:
            cursor.execute(query, values)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def row(self, query: str, *values: Any) -> Row | None:
        """The first row."""
        return next(iter(self.rows(query, *values)), None)

    def insert(self, table: str, **values: Any) -> None:
        """One new row."""
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self.rows(f"INSERT INTO {table} ({names}) VALUES ({marks})", *values.values())  # noqa: S608

    @cached_property
    def redis(self) -> Any:
        """Keys and channels."""
        return redis.Redis.from_url(self.config.redis, socket_connect_timeout=5)

    @cached_property
    def broker(self) -> Any:
        """Celery's queues."""
        return redis.Redis.from_url(self.config.broker, socket_connect_timeout=5)

    @cached_property
    def secret_key(self) -> bytes:
        """SECRET_KEY, or the generated one in the storage folder."""
        given = self.config.text("SECRET_KEY")
        if given:
            return given.encode()
        path = self.config.storage / ".dify_secret_key"
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".dify_secret_key.{os.getpid()}")
        new.write_text(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
        new.unlink()
        return path.read_bytes()

    def make_keys(self, tenant: str) -> str:
        """Write a tenant's private key; its public key."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path = self._private_key(tenant)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return (
            key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    def encrypt(self, tenant: str, text: str) -> str:
        """A secret under the tenant's public key."""
        row = self.row("SELECT encrypt_public_key FROM tenants WHERE id = %s", tenant)
        assert row
        key = serialization.load_pem_public_key(row["encrypt_public_key"].encode())
        assert isinstance(key, rsa.RSAPublicKey)
        return base64.b64encode(key.encrypt(text.encode(), _OAEP)).decode()

    def decryptor(self, tenant: str) -> rsa.RSAPrivateKey:
        """The tenant's private key: from Redis for a day, then from the storage folder.

        Raises:
            PrivkeyNotFoundError: it is in neither.
        """
        path = self._private_key(tenant)
        name = "tenant_privkey:" + hashlib.sha3_256(str(path).encode()).hexdigest()
        text = self.redis.get(name)
        if not text:
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                raise PrivkeyNotFoundError(f"Private key not found, tenant_id: {tenant}") from None
            self.redis.setex(name, KEY_CACHE, text)
        key = serialization.load_pem_private_key(text, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    def decrypt(self, key: rsa.RSAPrivateKey, text: str) -> str:
        """A secret in clear."""
        return key.decrypt(base64.b64decode(text), _OAEP).decode()

    def _private_key(self, tenant: str) -> Path:
        return self.config.storage / "privkeys" / tenant / "private.pem"


def as_json(value: Any) -> Any:
    """A value for a jsonb column."""
    return psycopg2.extras.Json(value)

"""Setup, login and sessions: who may use the console."""

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import random
import re
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any

from .state import Row, State, as_json
from .web import HTML, Answer, Handler, HTTPError, Request, Router, fail, reply

ACCESS, REFRESH = 3600, 30 * 24 * 3600
MOST_FAILURES, LOCKED = 5, 86400
CATEGORIES = ("tool", "model", "extension", "agent-strategy", "datasource", "trigger")
PASSWORD = re.compile(r"^(?=.*[a-zA-Z])(?=.*\d).{8,}$")
EMAIL = re.compile(r"^[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*@([\w-]+\.)+[a-z-]{2,63}$")
LANGUAGES = {"en-US": "America/New_York", "fr-FR": "Europe/Paris", "de-DE": "Europe/Berlin"}
EXPIRED = "Thu, 01 Jan 1970 00:00:00 GMT"
NAMES = ("access_token", "refresh_token", "csrf_token")


@dataclass(frozen=True)
class Session:
    """Who is logged in, and the workspace."""

    account: Row
    tenant: Row


def early(status: int, kind: str, message: str, **more: str) -> HTTPError:
    """An error of /setup and /init, which have a shape of their own."""
    error = {"type": kind, "message": message, "status": status, **more}
    return HTTPError(reply({"error": error}, status))


def unprocessable() -> HTTPError:
    """A bad field, which is never named."""
    text = "Validation error for parameter 'payload'"
    return early(422, "validation_error", text, details=text)


def hashed(password: str, salt: bytes) -> str:
    """A password as it is stored."""
    return base64.b64encode(
        hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10000).hex().encode()
    ).decode()


class Accounts:
    """The routes of the first visit, of login, and the check that others stand behind."""

    def __init__(self, state: State, router: Router) -> None:
        """Add the routes."""
        self.state = state
        self.config = state.config
        for method, path, handler in (
            ("GET", "setup", self.get_setup),
            ("POST", "setup", self.post_setup),
            ("GET", "init", self.get_init),
            ("POST", "init", self.post_init),
            ("POST", "login", self.login),
            ("POST", "logout", self.logout),
            ("POST", "refresh-token", self.refresh),
            ("GET", "account/profile", self.behind(self.profile)),
            ("POST", "workspaces/current", self.behind(self.workspace)),
            ("GET", "workspaces", self.behind(self.workspaces)),
        ):
            router.add(method, f"/console/api/{path}", handler)

    # The first visit.

    def get_setup(self, _: Request) -> Answer:
        """Whether there is an owner; 500 in HTML without the database."""
        row = self._row_or_html("SELECT setup_at FROM dify_setups")
        if not row:
            return reply({"step": "not_started", "setup_at": None})
        return reply({"step": "finished", "setup_at": row["setup_at"].isoformat("T", "seconds")})

    def get_init(self, request: Request) -> Answer:
        """Whether the init password was given, in this session or by an owner being there."""
        setup = self._row_or_html("SELECT setup_at FROM dify_setups")
        done = setup or not self.config.text("INIT_PASSWORD") or self._validated(request)
        return reply({"status": "finished" if done else "not_started"})

    def post_init(self, request: Request) -> Answer:
        """Take the init password; a session remembers it."""
        payload = request.loose_json() or {}
        password = payload.get("password")
        if not isinstance(password, str) or len(password) > 30:
            raise unprocessable()
        if self.is_set_up():
            raise early(403, "authorization_error", "Forbidden")
        good = hmac.compare_digest(password, self.config.text("INIT_PASSWORD"))
        cookie = ("Set-Cookie", f"session={self._signed(good)}; HttpOnly; Path=/")
        if not good:
            error = early(401, "authentication_error", "Unauthorized")
            error.answer.headers.append(cookie)
            raise error
        answer = reply({"result": "success"}, 201)
        answer.headers.append(cookie)
        return answer

    def post_setup(self, request: Request) -> Answer:
        """Make the owner and the workspace, once."""
        name, email, password, language = self._setup_fields(request)
        if self.is_set_up():
            raise early(403, "authorization_error", "Forbidden")
        if self.config.text("INIT_PASSWORD") and not self._validated(request):
            raise early(401, "authentication_error", "Unauthorized")
        language = language if language in LANGUAGES else "en-US"
        salt, account, tenant = secrets.token_bytes(16), str(uuid.uuid4()), str(uuid.uuid4())
        insert = self.state.insert
        insert(
            "accounts", id=account, name=name, email=email.lower(),
            password=hashed(password, salt), password_salt=base64.b64encode(salt).decode(),
            interface_language=language, timezone=LANGUAGES[language],
        )  # fmt: skip
        public = self.state.make_keys(tenant)
        insert("tenants", id=tenant, name=f"{name}'s Workspace", encrypt_public_key=public)
        insert("tenant_account_joins", tenant_id=tenant, account_id=account, role="owner")
        for category in CATEGORIES:
            insert(
                "tenant_plugin_auto_upgrade_strategies", tenant_id=tenant, category=category,
                strategy_setting="latest" if category == "model" else "fix_only",
                upgrade_time_of_day=random.randrange(0, 86400, 900),  # noqa: S311
                upgrade_mode="exclude", exclude_plugins=as_json([]), include_plugins=as_json([]),
            )  # fmt: skip
        self.state.rows("INSERT INTO dify_setups VALUES (%s, now())", self.config.version)
        return reply({"result": "success"}, 201)

    def is_set_up(self) -> bool:
        """Whether there is an owner."""
        return self.state.row("SELECT version FROM dify_setups") is not None

    def _setup_fields(self, request: Request) -> tuple[str, str, str, str | None]:
        payload = request.loose_json() or {}
        email, name, password = (payload.get(key) for key in ("email", "name", "password"))
        language = payload.get("language")
        if not (isinstance(email, str) and EMAIL.match(email.lower())):
            raise unprocessable()
        if not (isinstance(name, str) and len(name) <= 30):
            raise unprocessable()
        if not (isinstance(password, str) and PASSWORD.match(password)):
            raise unprocessable()
        if not (language is None or isinstance(language, str)):
            raise unprocessable()
        return name, email, password, language

    def _row_or_html(self, query: str) -> Row | None:
        try:
            return self.state.row(query)
        except Exception as error:
            page = b"<!doctype html>\n<title>500 Internal Server Error</title>\n"
            raise HTTPError(Answer(500, page, HTML)) from error

    def _signed(self, good: bool) -> str:
        text = base64.urlsafe_b64encode(json.dumps({"is_init_validated": good}).encode()).decode()
        return f"{text}.{self._mac(text)}"

    def _validated(self, request: Request) -> bool:
        text, _, mac = request.cookies.get("session", "").rpartition(".")
        if not hmac.compare_digest(mac, self._mac(text)):
            return False
        return bool(json.loads(base64.urlsafe_b64decode(text))["is_init_validated"])

    def _mac(self, text: str) -> str:
        return hmac.new(self.state.secret_key, text.encode(), hashlib.sha256).hexdigest()

    # Login.

    def login(self, request: Request) -> Answer:
        """Check the password, which comes in base64, and set three cookies."""
        self._need_setup()
        payload = request.json()
        email, password = self._login_fields(payload)
        key = f"login_error_rate_limit:{email}"
        if int(self.state.redis.get(key) or 0) > MOST_FAILURES:
            message = "Too many incorrect password attempts. Please try again later."
            raise fail(429, "email_code_login_limit", message)
        account = self.state.row("SELECT * FROM accounts WHERE email = %s", email)
        if not (account and _matches(account, password)):
            self.state.redis.setex(key, LOCKED, int(self.state.redis.get(key) or 0) + 1)
            raise fail(401, "authentication_failed", "Invalid email or password.")
        self.state.redis.delete(key)
        return self._log_in(str(account["id"]))

    def _login_fields(self, payload: dict[str, Any]) -> tuple[str, str]:
        try:
            password = base64.b64decode(str(payload.get("password", "")), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise fail(401, "authentication_failed", "Invalid encrypted data") from None
        email = payload.get("email")
        if not (isinstance(email, str) and EMAIL.match(email.lower())):
            raise fail(
                400,
                "invalid_param",
                "1 validation error for LoginPayload\nemail\n  Value error, not a valid email.",
            )
        return email.lower(), password

    def _log_in(self, account: str) -> Answer:
        now = int(time.time())
        refresh = secrets.token_hex(64)
        self.state.redis.setex(f"refresh_token:{refresh}", REFRESH, account)
        claims = {"user_id": account, "exp": now + ACCESS, "iss": "SELF_HOSTED"}
        values = (
            self._token({**claims, "sub": "Console API Passport"}),
            refresh,
            self._token({"exp": now + ACCESS, "sub": account}),
        )
        answer = reply({"result": "success"})
        for name, value, age in zip(NAMES, values, (ACCESS, REFRESH, ACCESS), strict=True):
            answer.headers.append(("Set-Cookie", self._cookie(name, value, age)))
        return answer

    def _cookie(self, name: str, value: str, age: int) -> str:
        secure = self.config.secure_cookies
        prefix = "__Host-" if secure else ""
        ends = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + age))
        parts = [f"{prefix}{name}={value}", f"Expires={ends if age else EXPIRED}"]
        parts += [f"Max-Age={age}", *(["Secure"] if secure else [])]
        parts += [*(["HttpOnly"] if name != "csrf_token" else []), "Path=/", "SameSite=Lax"]
        return "; ".join(parts)

    def refresh(self, request: Request) -> Answer:
        """Three new cookies for a refresh token, which is used up."""
        token = self._of(request, "refresh_token")
        if not token:
            return reply({"result": "fail", "message": "No refresh token provided"}, 401)
        account = self.state.redis.getdel(f"refresh_token:{token}")
        if not account:
            return reply({"result": "fail", "message": "Invalid refresh token"}, 401)
        return self._log_in(account.decode())

    def logout(self, request: Request) -> Answer:
        """End the refresh token; an access token lives until it expires. Without a CSRF header."""
        if not self._of(request, "access_token"):
            raise fail(401, "unauthorized", "Invalid Authorization token.")
        self.state.redis.delete(f"refresh_token:{self._of(request, 'refresh_token')}")
        answer = reply({"result": "success"})
        answer.headers += [("Set-Cookie", self._cookie(name, "", 0)) for name in NAMES]
        return answer

    # Sessions.

    def behind(self, handler: Handler) -> Handler:
        """A handler that gets the session too, and is not reached without one."""

        def guarded(request: Request, **parts: str) -> Answer:
            self._need_setup()
            return handler(request, self._session(request), **parts)

        return guarded

    def _session(self, request: Request) -> Session:
        token = self._of(request, "access_token") or request.bearer
        if not token:
            raise fail(401, "unauthorized", "Invalid Authorization token.")
        csrf = self._of(request, "csrf_token")
        header = request.headers.get("x-csrf-token", "")
        if not csrf or not hmac.compare_digest(csrf, header) or not self._claims(csrf):
            raise fail(401, "unauthorized", "CSRF token is missing or invalid.")
        account = str((self._claims(token) or {}).get("user_id", ""))
        if not account:
            raise fail(401, "unauthorized", "Invalid token.")
        tenant = self.state.row(
            "SELECT t.*, j.role FROM tenants t JOIN tenant_account_joins j ON j.tenant_id = t.id"
            " WHERE j.account_id = %s",
            account,
        )
        found = self.state.row("SELECT * FROM accounts WHERE id = %s", account)
        if not found or not tenant:
            raise fail(401, "unauthorized", "Invalid token.")
        return Session(found, tenant)

    def _of(self, request: Request, name: str) -> str:
        return request.cookies.get(("__Host-" if self.config.secure_cookies else "") + name, "")

    def _token(self, claims: dict[str, Any]) -> str:
        head = _part({"alg": "HS256", "typ": "JWT"}) + "." + _part(claims)
        mac = hmac.new(self.state.secret_key, head.encode(), hashlib.sha256).digest()
        return head + "." + base64.urlsafe_b64encode(mac).decode().rstrip("=")

    def _claims(self, token: str) -> dict[str, Any] | None:
        """What a token says, when it is ours and not past its end."""
        with contextlib.suppress(ValueError, IndexError):
            text = token.split(".")[1]
            claims: dict[str, Any] = json.loads(
                base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            )
            if hmac.compare_digest(self._token(claims), token) and claims["exp"] > time.time():
                return claims
        return None

    def _need_setup(self) -> None:
        if self.is_set_up():
            return
        if self.config.text("INIT_PASSWORD"):
            message = "Init validation has not been completed yet. "
            message += "Please proceed with the init validation process first."
            raise fail(401, "not_init_validated", message)
        message = "Dify has not been initialized and installed yet. "
        message += "Please proceed with the initialization and installation process first."
        raise fail(401, "not_setup", message)

    def profile(self, _: Request, session: Session) -> Answer:
        """Who is logged in."""
        row = session.account
        return reply(
            {
                "avatar": None,
                "id": str(row["id"]),
                "name": row["name"],
                "email": row["email"],
                "is_password_set": True,
                "interface_language": row["interface_language"],
                "interface_theme": "light",
                "timezone": row["timezone"],
                "created_at": int(row["created_at"].timestamp()),
            }
        )

    def workspace(self, _: Request, session: Session) -> Answer:
        """The workspace."""
        return reply(_workspace(session))

    def workspaces(self, _: Request, session: Session) -> Answer:
        """The list of the one workspace."""
        return reply({"workspaces": [{**_workspace(session), "current": True}]})


def _workspace(session: Session) -> dict[str, Any]:
    return {
        "id": str(session.tenant["id"]),
        "name": session.tenant["name"],
        "plan": "basic",
        "status": "normal",
        "role": session.tenant["role"],
    }


def _matches(account: Row, password: str) -> bool:
    salt = base64.b64decode(account["password_salt"])
    return hmac.compare_digest(account["password"], hashed(password, salt))


def _part(value: dict[str, Any]) -> str:
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def reset_password(state: State, email: str, new: str, confirm: str) -> str:
    """What ``flask reset-password`` does and says; its exit status is 0 whatever happens."""
    if new.strip() != confirm.strip():
        return "Passwords do not match."
    account = state.row("SELECT id FROM accounts WHERE email = %s", email.lower())
    if not account:
        return f"Account not found for email: {email}"
    if not PASSWORD.match(new):
        return "Invalid password. Must match ^(?=.*[a-zA-Z])(?=.*\\d).{8,}$"
    salt = secrets.token_bytes(16)
    state.rows(
        "UPDATE accounts SET password = %s, password_salt = %s WHERE id = %s",
        hashed(new, salt), base64.b64encode(salt).decode(), account["id"],
    )  # fmt: skip
    state.redis.delete(f"login_error_rate_limit:{email.lower()}")
    return "Password reset successfully."

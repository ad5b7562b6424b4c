"""The owner of Dify: the account, and logging in as it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import time

from dify_console import Answer, Dify, DifyError, fingerprint


class Owner:
    """The declared owner of one Dify."""

    def __init__(self, dify: Dify) -> None:
        self.dify, self.config, self.memory = dify, dify.config, dify.memory

    def do_setup(self) -> None:
        """Make the owner's account. A bad field would be a 422 that does not name it: see fleet."""
        owner = self.config["owner"]
        init = self.dify.call("GET", "/console/api/init").value["status"]
        if init == "not_started":
            answer = self.dify.http.request(
                "POST", "/console/api/init", {"password": self.config["init_password"]}
            )
            if answer.status != 201:
                raise DifyError(
                    "Dify does not take the installation password of the secrets store: the "
                    f"containers run with another INIT_PASSWORD ({answer.status})"
                )
        answer = self.dify.http.request(
            "POST",
            "/console/api/setup",
            {key: owner[key] for key in ("email", "name", "password", "language")},
        )
        if answer.status != 201:
            raise DifyError(f"the owner's account was not made: {answer.status}: {answer.message}")

    def login(self) -> None:
        """Log in as the owner, with at most one counted try: the seventh locks out for a day.

        Newer versions want the password in base64, older ones as it is. Plain text that cannot be
        base64 is not counted by the newer ones, so it goes first where the style is not known.

        Raises:
            DifyError: refused now, or with this very password by an earlier run.
        """
        owner = self.config["owner"]
        tried = fingerprint([owner["email"], owner["password"]])
        if self.memory.get("refused") == tried:
            raise DifyError(self._refused("was refused before, and is not tried again"))
        for style in self._styles(owner["password"]):
            answer = self._try_login(owner, style)
            if answer.status == 200:
                self.memory.keep("login_style", style)
                self.memory.forget("refused")
                return
            # Its words alone: a wrong password has the same status and the same code.
            if answer.message != "Invalid encrypted data":
                break
        if answer.status == 401:
            self.memory.keep("refused", tried)
            raise DifyError(self._refused("is refused"))
        if answer.status == 429:
            # Not counted by Dify, so the next deploy may try: the lock ends by itself.
            raise DifyError(self._refused("was tried too often, Dify is locked for a day, and it"))
        raise DifyError(f"login: {answer.status}: {answer.message}")

    def _styles(self, password: str) -> list[str]:
        if self.memory.get("login_style") == "base64":
            return ["base64"]
        return ["plain", "base64"] if is_no_base64(password) else ["base64"]

    def _try_login(self, owner: dict[str, str], style: str) -> Answer:
        password = owner["password"]
        if style == "base64":
            password = base64.b64encode(password.encode()).decode()
        self.dify.http.cookies.clear()
        body = {"email": owner["email"], "password": password, "remember_me": True}
        deadline = time.monotonic() + self.config["retry_timeout"]
        while True:
            # No answer or a 5xx (Redis is not up yet) says nothing of the password.
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = self.dify.http.request("POST", "/console/api/login", body)
                if answer.status < 500 or time.monotonic() > deadline:
                    return answer
            if time.monotonic() > deadline:
                raise DifyError("login: no answer of Dify's API")
            time.sleep(2)

    def _refused(self, what: str) -> str:
        email, name = self.config["owner"]["email"], self.config["password_name"]
        return (
            f"the password of {email} {what}. If it was changed in Dify, write the present one to "
            f"{name} in the secrets store and deploy. If it is lost, set it to the store's by "
            f"`{self.config['reset_command']}` on the host, then rm {self.config['memory']}"
        )


def is_no_base64(text: str) -> bool:
    """Whether Dify cannot take `text` for base64; it decodes as leniently as Python does."""
    try:
        base64.b64decode(text)
    except (binascii.Error, ValueError):
        return True
    return False

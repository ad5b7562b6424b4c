"""What comes from outside, judged before anybody relies on it: how much it is, and its form.

A registry's answer, a server's, a file that another program wrote: each may be cut, endless, of
another form, or made to do harm. Whoever reads one says which form it must have. A form is data:

    str, bool      text that can be written down, a truth value
    int, float     a whole number from 0 on, a finite number
    range(1, 9)    a whole number of these
    a pattern      text that it matches from end to end
    [form]         a list of such
    {"a": form, "b?": form, ...: form}
                   an object with `a`; with `b`, unless that is missing or null; and every other
                   value of the last form, if that is told
    (form, None)   one of these; None is null

It stands alone: product code reads it too.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
import time
from pathlib import Path
from typing import Any, Protocol

Form = Any  # as above
MOST = 2**63  # no number of theirs is as large: what they count fits into an int64


class FormError(ValueError):
    """What came from outside has not the form, or not the size, that it must have."""


class Readable(Protocol):
    """An answer over HTTP, or an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def judged(value: Any, form: Form, at: str = "it") -> Any:
    """`value`, which has the form.

    Raises:
        FormError: it has not; `at` names it.
    """
    if isinstance(form, dict):
        _judge_object(value, form, at)
    elif isinstance(form, list):
        _demand(isinstance(value, list), value, "list", at)
        for place, item in enumerate(value):
            judged(item, form[0], f"{at}[{place}]")
    elif isinstance(form, tuple):
        _judge_any(value, form, at)
    else:
        _judge_scalar(value, form, at)
    return value


def parsed(content: bytes | str, form: Form, at: str = "it") -> Any:
    """The value of a JSON text, which has the form.

    Raises:
        FormError: it is no JSON, or of another form.
    """
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise FormError(f"{at} is nested too deeply") from None
    except ValueError as error:
        raise FormError(f"{at} is no JSON: {error}") from None
    return judged(value, form, at)


def counted(text: str) -> int | None:
    """The whole number that a text is, from 0 on; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def read_all(source: Readable, limit: int, seconds: float = math.inf) -> bytes:
    """What `source` has to the end: at most `limit` bytes, within about `seconds`.

    Raises:
        FormError: it goes on.
    """
    deadline = time.monotonic() + seconds
    pieces, left = [], limit + 1
    # Each piece as soon as it is there, where the source can: a trickle is looked at too.
    read = getattr(source, "read1", source.read)
    while left and (piece := read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
        if time.monotonic() > deadline:
            raise FormError(f"it has not ended after {seconds:.0f} s")
    if not left:
        raise FormError(f"it has more than {limit} bytes")
    return b"".join(pieces)


def read_file(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes; nothing but a file is waited for.

    Raises:
        FormError: it is no regular file, or larger.
        OSError: it cannot be read.
    """
    # Opening a pipe would wait for whoever writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormError(f"{path} is no file")
    with os.fdopen(descriptor, "rb") as file:
        return read_all(file, limit)


def _judge_object(value: Any, form: dict[Any, Form], at: str) -> None:
    _demand(isinstance(value, dict), value, "object", at)
    names = {name.removesuffix("?") for name in form if name is not ...}
    for name, inner in form.items():
        if name is ...:
            for key in value.keys() - names:
                _judge_scalar(key, str, at)
                judged(value[key], inner, f"{at}.{key}")
        elif not name.endswith("?"):
            if name not in value:
                raise FormError(f"{at} has no {name}")
            judged(value[name], inner, f"{at}.{name}")
        elif value.get(name[:-1]) is not None:
            judged(value[name[:-1]], inner, f"{at}.{name[:-1]}")


def _judge_any(value: Any, forms: tuple[Form, ...], at: str) -> None:
    first: FormError | None = None
    if value is None and None in forms:
        return
    for form in forms:
        if form is None:
            continue
        try:
            judged(value, form, at)
        except FormError as error:
            first = first or error
        else:
            return
    assert first, forms
    raise first


def _judge_scalar(value: Any, form: Form, at: str) -> None:
    if form is str:
        _demand(isinstance(value, str) and _can_be_written(value), value, "text", at)
    elif form is bool:
        _demand(isinstance(value, bool), value, "truth value", at)
    elif form is int:
        _demand(type(value) is int and 0 <= value < MOST, value, "whole number from 0 on", at)
    elif form is float:
        _demand(type(value) in (int, float) and math.isfinite(value), value, "number", at)
    elif isinstance(form, range):
        wanted = f"number from {form.start} to {form[-1]}"
        _demand(type(value) is int and value in form, value, wanted, at)
    elif isinstance(form, re.Pattern):
        matches = isinstance(value, str) and form.fullmatch(value)
        _demand(bool(matches), value, f"text like {form.pattern}", at)
    else:
        _demand(form is None and value is None, value, "null", at)


def _demand(is_so: bool, value: Any, wanted: str, at: str) -> None:
    if not is_so:
        raise FormError(f"{at} is {reprlib.repr(value)}, and no {wanted}")


def _can_be_written(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which JSON can have and no file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")

"""Keys and passwords of the environment, which no text that is kept or passed on may hold.

A server may say a key back, in an error or as its answer, and a text is kept, exported and shown in many places. So it
is taken out where the text comes in: whoever keeps it need not think of it.
"""

import os
import re
from collections.abc import Iterable
from collections.abc import Iterator
from urllib.parse import unquote

SHORTEST = 8
"""Characters of a secret. A shorter one stands for none, as `none` does, and is a word of other texts."""

HIDDEN = "…"

_NAMES = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|(?:PG)?PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)")  # fmt: skip
_HEADERS = re.compile(r"_HEADERS$")


def secrets() -> tuple[str, ...]:
    """What the environment holds under names such as OPENAI_API_KEY, the longest first."""
    return tuple(sorted(set(_found()), key=len, reverse=True))


def _found() -> Iterator[str]:
    for name, value in os.environ.items():
        if _NAMES.search(name.upper()) and not value.startswith("/"):  # the place of one is none
            yield from _long(value)
        elif _HEADERS.search(name.upper()):
            # As OpenTelemetry has them: name=value,name=value
            yield from _long(value, *re.split(r"[=,\s]+", value), *re.split(r"[=,\s]+", unquote(value)))  # fmt: skip


def _long(*texts: str) -> Iterator[str]:
    return (text for text in texts if len(text) >= SHORTEST)


def hide(text: str, known: Iterable[str] = ()) -> str:
    """The text without the environment's secrets, and without those that are known beside them."""
    for secret in (*_long(*known), *secrets()):
        text = text.replace(secret, HIDDEN)
    return text


class Veil:
    """A text that comes in pieces, without secrets that may be split between them."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._secrets = (*_long(*known), *secrets())
        self._held = ""

    def pass_on(self, piece: str) -> str:
        """What can be told of the text by now: all but an end that a secret may begin with."""
        text = self._held + piece
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        held = max((_begun(text, secret) for secret in self._secrets), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        """What was held back."""
        text, self._held = self._held, ""
        return text


def _begun(text: str, secret: str) -> int:
    """Characters at the end of a text with which a secret begins."""
    sizes = range(min(len(text), len(secret) - 1), 0, -1)
    return next((size for size in sizes if secret.startswith(text[-size:])), 0)

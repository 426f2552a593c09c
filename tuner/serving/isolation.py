"""How a trial is kept from finding the prompts of those before it in a server's prefix cache; one function an engine.

Apart from the endpoints, since whoever started a server, its cache is emptied in the same way. Where that cannot be
done, the trial's prompts are told apart from all others by a salt: vLLM takes one beside the prompt, for any other
server it is a line before it.
"""

import secrets
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from string import ascii_lowercase
from typing import TYPE_CHECKING
from typing import Literal

from tuner.measure.server.scraper import authorities
from tuner.measure.server.scraper import is_loopback
from workflows.llm import Salting

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 60.0
"""A slot of llama.cpp is erased once it is idle, and a call that was given up may still be in it."""
BUSY_S = 5.0
"""How long a server is asked again that still has calls which were given up."""
PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Isolation:
    """How the prompts of earlier trials were put out of a trial's reach."""

    how: Literal["cleared", "salted"]
    salt: str | None
    """What tells the trial's prompts apart, None where the cache was cleared."""
    by: str
    """In words: what was asked of the server, or why it was not."""
    salting: Salting | None = None
    """Where the salt goes, None where the cache was cleared."""

    @property
    def label(self) -> str:
        """`cleared`, `salted: cache_salt` or `salted: prompt`; what provenance keeps."""
        return self.how if self.salting is None else f"{self.how}: {self.salting}"


class ClearError(Exception):
    """A server's cache could not be emptied; says why."""


def cleared(by: str) -> Isolation:
    """The cache was emptied, by this."""
    return Isolation("cleared", None, by)


def salted(tag: str, salting: Salting, why: str) -> Isolation:
    """Prompts are told apart by the tag."""
    return Isolation("salted", tag, why, salting)


def fresh_tags() -> Iterator[str]:
    """Short texts without end, unlike those of any other time or process; two in a row differ from their first letter on.

    Prompts that begin with them then differ from their first token on.
    """
    start = secrets.randbelow(len(ascii_lowercase))
    for number in count(start):
        letter = ascii_lowercase[number % len(ascii_lowercase)]
        yield letter + secrets.token_hex(4)


def isolate(root: str, engine: str | None, tag: str, *, api_key: str | None = None) -> Isolation:
    """Empty the prefix cache of the server at `root` (without /v1), or else tell the trial's prompts apart by its tag.

    The tag is a trial's own (`fresh_tags`). `engine` is what the server calls itself as the owner of its models: vllm, sglang, llamacpp. Raises nothing.
    """
    clear = _CLEAR.get(engine or "")
    salting: Salting = "cache_salt" if engine == "vllm" else "prompt"
    if clear is None:
        return salted(tag, salting, "its server is of no known kind")
    import httpx

    try:
        with httpx.Client(
            base_url=root,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=TIMEOUT_S,
            verify=authorities(),
            trust_env=not is_loopback(root),
        ) as client:
            return cleared(clear(client))
    except ClearError as error:
        return salted(tag, salting, str(error))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return salted(tag, salting, f"{type(error).__name__}: {error}")


def _clear_vllm(client: "httpx.Client") -> str:
    # With what is offloaded to memory beside the GPU's; a server that offloads nothing does not mind.
    path = "/reset_prefix_cache?reset_external=true"

    def done(reply: "httpx.Response") -> bool:
        try:
            return reply.is_success and reply.json().get("success") is not False
        except (ValueError, AttributeError):  # older ones answer nothing
            return reply.is_success

    return _post(client, path, done=done, hint="vLLM resets its cache with VLLM_SERVER_DEV_MODE=1")


def _clear_sglang(client: "httpx.Client") -> str:
    return _post(client, "/flush_cache", done=lambda reply: reply.is_success, busy=400)


def _clear_llama_cpp(client: "httpx.Client") -> str:
    hint = "llama.cpp erases slots with --slots and --slot-save-path FOLDER"
    reply = client.get("/slots")
    try:
        slots = [int(slot["id"]) for slot in reply.json()] if reply.is_success else []
    except (ValueError, TypeError, KeyError):
        slots = []
    if not slots:
        raise ClearError(f"GET /slots: {reply.status_code} ({hint})")
    for slot in slots:
        _post(client, f"/slots/{slot}?action=erase", done=lambda reply: reply.is_success, hint=hint)
    return f"POST /slots/…?action=erase, {len(slots)} of {len(slots)} slots"


_CLEAR: Mapping[str, Callable[["httpx.Client"], str]] = {
    "vllm": _clear_vllm,
    "sglang": _clear_sglang,
    "llamacpp": _clear_llama_cpp,
}


def _post(
    client: "httpx.Client",
    path: str,
    *,
    done: Callable[["httpx.Response"], bool],
    busy: int = 200,
    hint: str = "",
) -> str:
    """Ask until it is done, for as long as the server only says that it is busy. Raises ClearError."""
    deadline = time.monotonic() + BUSY_S
    while not done(reply := client.post(path)):
        if reply.status_code != busy or time.monotonic() > deadline:
            raise ClearError(f"POST {path}: {reply.status_code} {hint and f'({hint})'}".rstrip())
        time.sleep(PAUSE_S)
    return f"POST {path}"

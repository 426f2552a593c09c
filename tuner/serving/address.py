"""A model at an address that we are given: checked, never started or stopped."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from tuner.errors import ServingError
from tuner.measure.server.scraper import authorities
from tuner.serving.endpoint import Endpoint
from tuner.serving.isolation import Isolation
from tuner.serving.isolation import isolate
from tuner.serving.isolation import salted
from tuner.serving.models import Addressed

PROBE_TIMEOUT_S = 10.0
SHOWN = 20
"""Names of models in a message."""
PROBE_BYTES = 2**20
"""What is read of a list of models."""


class Address(Endpoint):
    """A server of somebody else's, or a hosted provider (no `api_base`)."""

    def __init__(self, name: str, spec: Addressed) -> None:
        self._name = name
        self.settings = spec.settings()
        self.engine: str | None = None
        """Who the server says owns the model, since it was checked: vllm, sglang, llamacpp, …"""

    def wait(self) -> None:
        """Only looks whether it is there: a server of somebody else's is up or is not."""
        self.check()

    def fingerprint(self) -> dict[str, Any]:
        """Model, address and the way of asking; not the patience with which we ask."""
        return self.settings.model_dump(
            include={"model", "api_base", "endpoint", "grammar", "json_schema"}
        )

    def check(self) -> None:
        """Return if anything answers HTTP there and, if it lists its models, ours is among them.

        A hosted provider is taken at its word. Raises ServingError.
        """
        if self.settings.api_base is None:
            return
        listed = _list_models(
            self._name, self.settings.api_base, read_key(self.settings.api_key_env)
        )
        ours = listed.keys() & _server_names(self.settings.model)
        self.engine = next((listed[name] for name in ours), None)
        if listed and not ours:
            names = ", ".join(sorted(listed)[:SHOWN])
            if len(listed) > SHOWN:
                names += f" and {len(listed) - SHOWN} more"
            raise ServingError(
                f"models.{self._name}: {self.settings.api_base} does not serve {self.settings.model}; it serves: {names}",
                hint="`model` is a provider's prefix and the server's name: hosted_vllm/NAME",
            )

    def isolate(self, tag: str) -> Isolation:
        """Empty the server's prefix cache where it is of a kind that can be asked to, else a salt."""
        if self.root is None:
            return salted(tag, "prompt", "a hosted provider's cache cannot be emptied")
        return isolate(self.root, self.engine, tag, api_key=read_key(self.settings.api_key_env))

    def close(self) -> None:
        """Nothing: the server is not ours."""


def read_key(api_key_env: str | None) -> str | None:
    """The key in the environment, None where there is none."""
    return os.environ.get(api_key_env) if api_key_env else None


def _list_models(name: str, api_base: str, key: str | None) -> dict[str, str | None]:
    """What the server says it serves, and who owns it; empty where it does not say."""
    import httpx

    try:
        status, content = _get(f"{api_base.rstrip('/')}/models", key)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ServingError(
            f"models.{name}: nothing answers at {api_base}: {said.replace(key, '…') if key else said}",
            hint="start the server, or correct `api_base` (it usually ends in /v1)",
        ) from None
    try:
        entries = json.loads(content)["data"] if status < HTTPStatus.MULTIPLE_CHOICES else []
        return {str(entry["id"]): entry.get("owned_by") for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _get(url: str, key: str | None) -> tuple[int, bytes]:
    """Status and the beginning of what is there, within PROBE_TIMEOUT_S however slowly it comes."""
    # In a loop of its own, which can be left at any byte; in a thread, since the caller may be in one as well.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _get_async(url, key)).result()


async def _get_async(url: str, key: str | None) -> tuple[int, bytes]:
    import httpx

    from workflows.wire import ASK_PLAIN

    headers = {**ASK_PLAIN, **({"Authorization": f"Bearer {key}"} if key else {})}
    content = b""
    async with (
        asyncio.timeout(PROBE_TIMEOUT_S),
        httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, verify=authorities()) as client,
        client.stream("GET", url, headers=headers) as reply,
    ):
        async for piece in reply.aiter_raw():
            content += piece
            if len(content) > PROBE_BYTES:
                break
        return reply.status_code, content[:PROBE_BYTES]


def _server_names(model: str) -> set[str]:
    """litellm's name with and without what may be a provider's prefix."""
    return {model, model.partition("/")[2]}

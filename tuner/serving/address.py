"""A model at an address that we are given: checked, never started or stopped."""

import os
from typing import Any

from tuner.errors import ServingError
from tuner.serving.endpoint import Endpoint
from tuner.serving.models import Addressed

PROBE_TIMEOUT_S = 5.0


class Address(Endpoint):
    """A server of somebody else's, or a hosted provider (no `api_base`)."""

    def __init__(self, name: str, spec: Addressed) -> None:
        self._name = name
        self.settings = spec.settings()

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
        listed = _list_models(self._name, self.settings.api_base, self.settings.api_key_env)
        if listed and not listed & _server_names(self.settings.model):
            names = ", ".join(sorted(listed))
            raise ServingError(
                f"models.{self._name}: {self.settings.api_base} does not serve {self.settings.model}; it serves: {names}",
                hint="`model` is a provider's prefix and the server's name: hosted_vllm/NAME",
            )

    def clear_cache(self) -> bool:
        """False: OpenAI-compatible servers have no common way."""
        return False

    def close(self) -> None:
        """Nothing: the server is not ours."""


def _list_models(name: str, api_base: str, api_key_env: str | None) -> set[str]:
    """What the server says it serves; empty where it does not say."""
    import httpx

    key = os.environ.get(api_key_env) if api_key_env else None
    try:
        reply = httpx.get(
            f"{api_base.rstrip('/')}/models",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=PROBE_TIMEOUT_S,
        )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ServingError(
            f"models.{name}: nothing answers at {api_base}: {type(error).__name__}: {error}",
            hint="start the server, or correct `api_base` (it usually ends in /v1)",
        ) from None
    try:
        entries = reply.json()["data"] if reply.is_success else []
        return {str(entry["id"]) for entry in entries}
    except (ValueError, KeyError, TypeError):
        return set()


def _server_names(model: str) -> set[str]:
    """litellm's name with and without what may be a provider's prefix."""
    return {model, model.partition("/")[2]}

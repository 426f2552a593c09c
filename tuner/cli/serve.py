"""`tuner serve`: an exported configuration behind an API that OpenAI's clients speak."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import AllowCustom


def serve(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Exported configuration.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback one wants --api-key-env.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What clients call the model; the file's name, if not said."
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Environment variable with the key that clients must send."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests answered at once.")] = 8,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; others get 429.")] = 32,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="From a request's arrival to its answer; then 504.")
    ] = 300.0,
    max_body_bytes: Annotated[
        int, typer.Option(min=1, help="Of a request; a larger one gets 413.")
    ] = 1 << 20,
    grace_s: Annotated[
        float, typer.Option(min=0.0, help="For requests under way, once told to stop.")
    ] = 30.0,
    allow_custom: AllowCustom = False,
) -> None:
    """Serve an exported configuration at /v1/chat/completions, with /v1/models, /healthz and /metrics."""
    import importlib.util

    from tuner.errors import UserError

    if any(importlib.util.find_spec(package) is None for package in ("starlette", "uvicorn")):
        raise UserError(
            "tuner serve needs starlette and uvicorn", hint="pip install 'tuner[serve]'"
        )

    from tuner.cli.output import talk
    from tuner.deploy import deploy
    from tuner.openai_api.app import Limits
    from tuner.openai_api.app import make_app
    from tuner.openai_api.server import address
    from tuner.openai_api.server import bind
    from tuner.openai_api.server import read_api_key
    from tuner.openai_api.server import serve as listen

    api_key = read_api_key(host, api_key_env)
    limits = Limits(
        concurrency=concurrency, queue=queue, timeout_s=timeout_s, max_body_bytes=max_body_bytes
    )
    with (
        bind(host, port) as listening,
        deploy(file, allow_custom=allow_custom, say=talk) as deployed,
    ):
        called = name or file.stem
        app = make_app(deployed, name=called, limits=limits, api_key=api_key)
        talk(f"serving {file} as model {called!r}; Ctrl-C stops it")
        print(address(listening), flush=True)
        listen(app, listening, grace_s=grace_s)
    talk("stopped")

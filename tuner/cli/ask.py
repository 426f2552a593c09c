"""`tuner ask`: runs an exported configuration on a question."""

from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated

import typer

from tuner.cli.arguments import AllowCustom

if TYPE_CHECKING:
    from workflows.base import Outcome


def ask(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Exported configuration.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    allow_custom: AllowCustom = False,
) -> None:
    """Answer a question with an exported configuration, starting its model's server if need be."""
    import asyncio
    import sys

    from tuner.cli.output import plain
    from tuner.cli.output import talk
    from tuner.deploy import deploy

    with deploy(file, allow_custom=allow_custom, say=talk) as deployed:

        async def answer() -> "Outcome":
            try:
                return await deployed.agent.run(question)
            finally:
                await deployed.agent.close()

        outcome = asyncio.run(answer())
    calls = sum(span.kind == "llm" for span in outcome.spans)
    tools = len(outcome.spans) - calls
    print(plain(outcome.answer) if sys.stdout.isatty() else outcome.answer)
    talk(f"{outcome.latency_s:.2f} s, {calls} model calls, {tools} tool calls")

"""`tuner ask`: runs an exported configuration on a question."""

from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated

import typer

if TYPE_CHECKING:
    from workflows.base import Outcome


def ask(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Exported configuration.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
) -> None:
    """Answer a question with an exported configuration, starting its model's server if need be."""
    import asyncio
    from contextlib import ExitStack

    from tuner.cli.output import talk
    from tuner.serving import start_exported
    from workflows.agent import build
    from workflows.config import load_agent_file
    from workflows.llm import ChatClient

    agent_file = load_agent_file(file)
    with ExitStack() as stack:
        clients = {
            name: ChatClient(stack.enter_context(start_exported(name, model, say=talk)).settings)
            for name, model in agent_file.models.items()
        }
        agent = build(agent_file.config, llms=clients, pack=agent_file.pack)

        async def answer() -> "Outcome":
            try:
                return await agent.run(question)
            finally:
                for client in clients.values():
                    await client.close()

        outcome = asyncio.run(answer())
    calls = sum(span.kind == "llm" for span in outcome.spans)
    tools = len(outcome.spans) - calls
    print(outcome.answer)
    talk(f"{outcome.latency_s:.2f} s, {calls} model calls, {tools} tool calls")

"""Tokens of prompts by role: what the instruction, the demonstrations, the question and the history of an agent cost.

Apart from the trace, which counts the tokens of whole prompts as the server reports them: roles are found again in a
prompt's text, and its tokens are shared out by characters, since only the server knows where one token ends.

the question     where it stands last
demonstrations   from the first one's question to the end of the last one's answer
llm history      earlier replies, wherever they stand again (steps, plans, reflections)
tool history     earlier observations, likewise
instruction      all the rest: instruction, names of fields, separators
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.records import ExampleRun
from workflows.agent_pack import AgentPack
from workflows.trace import Span

SHORTEST = 3
"""A reply or observation of fewer characters is found anywhere, and means nothing."""

BEGINNING = 24
"""So many characters must stand again; as far as the rest does, it belongs to them: workflows cut long observations."""

ROLES = ("instruction", "few_shot", "user", "llm_history", "tool_history", "output")

_INSTRUCTION, _FEW_SHOT, _USER, _LLM, _TOOL = range(5)


@dataclass(frozen=True, slots=True)
class RoleTokens:
    """Tokens of one call by role. Figure 8 of Kim et al. (arXiv 2506.04301)."""

    instruction: float
    few_shot: float
    user: float
    llm_history: float
    tool_history: float
    output: float


def role_tokens(run: ExampleRun, question: str, pack: AgentPack) -> tuple[RoleTokens, ...] | None:
    """The tokens of each model call of a run, in the order in which they were made.

    None where a call's tokens were not reported. Sums over the input roles are the call's `tokens_in`.
    """
    calls = sorted(
        (span for span in run.spans if span.kind == "llm" and (span.error is None or span.output)),
        key=lambda span: span.start_s,
    )
    counted = []
    for call in calls:
        if call.tokens_in is None or call.tokens_out is None:
            return None
        shares = _shares(call, question, pack, run.spans)
        amounts = dict(zip(ROLES, (*(call.tokens_in * shares), call.tokens_out), strict=True))
        counted.append(RoleTokens(**{role: float(amount) for role, amount in amounts.items()}))
    return tuple(counted)


def _shares(
    call: Span, question: str, pack: AgentPack, spans: Sequence[Span]
) -> npt.NDArray[np.float64]:
    """Shares of a prompt's characters by role of its input; an empty prompt is all instruction."""
    text = call.input
    roles = np.full(max(1, len(text)), _INSTRUCTION, dtype=np.int8)
    asked = text.rfind(question) if question else -1
    shown = [
        (at, demo) for demo in pack.demonstrations if 0 <= (at := text.find(demo.question)) < asked
    ]
    if shown:
        first, _ = min(shown, key=lambda pair: pair[0])
        last, demo = max(shown, key=lambda pair: pair[0])
        # `workflows.prompt.layout` ends it with a blank line; a program that it shows may hold others.
        end = text.find("\n\n", max(last, text.find(demo.answer, last) + len(demo.answer)), asked)
        roles[first : end if end >= 0 else asked] = _FEW_SHOT
    if asked >= 0:
        roles[asked : asked + len(question)] = _USER
    # A reply that is still in the making when this call begins is no history of it.
    for role, kind in ((_LLM, "llm"), (_TOOL, "tool")):
        for earlier in spans:
            if earlier.kind == kind and earlier.end_s <= call.start_s and earlier is not call:
                _mark(roles, text, earlier.output.strip(), role)
    return np.bincount(roles, minlength=5) / len(roles)


def _mark(roles: npt.NDArray[np.int8], text: str, said: str, role: int) -> None:
    """Give a role to where something stands again, outside of demonstrations and of the question itself."""
    if len(said) < SHORTEST:
        return
    beginning = said[:BEGINNING]
    at = text.find(beginning)
    while at >= 0:
        end = at + len(beginning)
        while end - at < len(said) and end < len(text) and text[end] == said[end - at]:
            end += 1
        if not np.isin(roles[at:end], (_FEW_SHOT, _USER)).any():
            roles[at:end] = role
        at = text.find(beginning, end)

"""Figure 8: the tokens of a model call by what they are for."""

from tuner.measure.tokens import ROLES
from tuner.measure.tokens import role_tokens
from tuner.profile.estimate import Value
from tuner.profile.estimate import ratio
from tuner.profile.evaluation import Evaluation
from tuner.profile.found import Found
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Table
from tuner.profile.table import rows

TITLES = {
    "instruction": "instruction",
    "few_shot": "demonstrations",
    "user": "question",
    "llm_history": "model history",
    "tool_history": "tool history",
    "output": "output",
}
NAMES = {role: f"{'question' if role == 'user' else role}_tokens" for role in ROLES}


def roles(found: Found) -> Table:
    """Mean tokens of a call by role, over all calls."""
    questions = {example.id: example.question for example in found.task.search}

    def values(of: Evaluation) -> dict[str, Value]:
        calls = [role_tokens(run, questions[run.example_id], found.task.pack) for run in of.runs]
        return {
            name: ratio(
                [None if each is None else sum(getattr(c, role) for c in each) for each in calls],
                [None if each is None else len(each) for each in calls],
                why="the server did not report tokens of every call",
            )
            for role, name in NAMES.items()
        }

    return Table(
        figure="8",
        title="tokens of a model call by role",
        columns=tuple(Column(NAMES[role], "tokens", TITLES[role]) for role in ROLES),
        rows=rows(
            found.measured,
            tuple(NAMES.values()),
            values,
            count=lambda of: sum(run.llm_calls for run in of.runs),
        ),
        charts=(Chart("stack", tuple(NAMES.values())),),
        counts="calls",
        notes=("Counts are the server's; a prompt's are shared out over its roles by characters.",),
    )

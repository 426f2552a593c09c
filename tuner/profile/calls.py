"""Figure 4: how often a request calls the model and the tools."""

from tuner.profile.estimate import mean
from tuner.profile.found import Found
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Table
from tuner.profile.table import rows


def calls(found: Found) -> Table:
    """Calls of the model and of tools per request; a try that was repeated counts as often as it was made."""
    return Table(
        figure="4",
        title="calls of the model and of tools per request",
        columns=(
            Column("llm_calls", "calls", "model calls"),
            Column("tool_calls", "calls", "tool calls"),
        ),
        rows=rows(
            found.measured,
            ("llm_calls", "tool_calls"),
            lambda of: {
                "llm_calls": mean([run.llm_calls for run in of.runs]),
                "tool_calls": mean([run.tool_calls for run in of.runs]),
            },
        ),
        charts=(Chart("bars", ("llm_calls", "tool_calls")),),
    )

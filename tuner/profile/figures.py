"""The figures by number; a new one is a function from what was found to a table, and a line here."""

from collections.abc import Callable
from collections.abc import Mapping

from tuner.profile import baseline
from tuner.profile import caching
from tuner.profile import calls
from tuner.profile import latency
from tuner.profile import rates
from tuner.profile import roles
from tuner.profile import scaling
from tuner.profile.found import Found
from tuner.profile.table import Table

FIGURES: Mapping[str, Callable[[Found], Table]] = {
    "4": calls.calls,
    "5": latency.parts,
    "6": latency.device,
    "7": latency.distribution,
    "8": roles.roles,
    "9": caching.calls,
    "11": rates.rates,
    "12": caching.memory,
    "13": scaling.trade,
    "14": scaling.iteration_budget,
    "15": scaling.few_shot,
    "16": scaling.more_turns,
    "17": scaling.model_size,
    "III": baseline.energy_of_a_query,
}
"""Those of Kim et al. (arXiv 2506.04301) that a study can show."""

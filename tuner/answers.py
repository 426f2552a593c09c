"""What each trial's answers came to, question by question, with the names of the questions.

Apart from `results`, which needs whole trials to put them on a front: here any two trials can be brought to the questions
that both answered.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tuner.objectives import OBJECTIVES
from tuner.objectives import Amounts
from tuner.objectives import by_question
from tuner.store import Store
from tuner.tasks import Split


@dataclass(frozen=True, slots=True)
class Answers:
    """One trial's answers on one split."""

    questions: tuple[str, ...]
    """Ids, in ascending order."""
    amounts: Mapping[str, Amounts]
    """By quantity (a name of OBJECTIVES): (questions, answers) in its unit; what was not measured on every answer is left out."""

    def on(self, questions: Sequence[str]) -> "Answers":
        """Those to some of the questions, in this order. Raises KeyError for one that was not answered."""
        places = {question: place for place, question in enumerate(self.questions)}
        chosen = [places[question] for question in questions]
        amounts = {name: amounts[chosen] for name, amounts in self.amounts.items()}
        return Answers(tuple(questions), amounts)


def read_answers(store: Store, split: Split, quantities: Sequence[str]) -> dict[int, Answers]:
    """By trial id, what the trials with any answer on the split gave; reads columns only, never whole traces."""
    measured = [OBJECTIVES[name] for name in quantities]
    fields = list(dict.fromkeys(field for each in measured for field in each.fields))
    rows, asked = store.fields(split, fields), store.asked(split)
    found = {}
    for trial_id, table in rows.items():
        ids = [example for example, _ in asked[trial_id]]
        starts = np.flatnonzero([True, *(a != b for a, b in pairwise(ids))])
        columns = dict(zip(fields, table.T, strict=True))
        amounts = {o.name: o.amounts(*(columns[field] for field in o.fields)) for o in measured}
        found[trial_id] = Answers(
            tuple(ids[start] for start in starts),
            {
                name: by_question(values, starts)
                for name, values in amounts.items()
                if not np.isnan(values).any()
            },
        )
    return found

"""Whether a study has spent more than its budget, by what is stored of it: asked by the service, whatever the run itself thinks.

Apart from `tuner.budget`, by which a run does not begin what it cannot afford: this is the wall behind it. What a run may
be late by is allowed, and no more.
"""

from contextlib import closing

from tuner.budget import QUANTITIES
from tuner.budget import spent
from tuner.errors import StoreError
from tuner.results import counted
from tuner.samplers import POOLED
from tuner.spec import LoadedStudy
from tuner.store import Store

LATE = 0.1
"""Part of a limit on trials and time by which a run may be late: trials under way are finished."""

LATE_S = 60.0


def exceeded(study: LoadedStudy) -> str | None:
    """Which limit is broken, and by how much; None for none, and for a study of which nothing is kept yet."""
    try:
        store = Store.open(study.storage_url, study.spec.name)
    except StoreError:
        return None
    with closing(store):
        return _broken(study, store)


def _broken(study: LoadedStudy, store: Store) -> str | None:
    budget, row = study.spec.budget, store.row()
    amounts = spent(store)
    for name, quantity in QUANTITIES.items():
        limit, total = getattr(budget, name), amounts[name].total
        if limit is not None and total is not None and total > limit:
            return _said(total, limit, quantity.unit)
    if budget.wall_clock is not None and row is not None:
        late_s = max(LATE_S, LATE * budget.wall_clock)
        if row.search_s > budget.wall_clock + late_s:
            return _said(row.search_s, budget.wall_clock, "s")
    if study.spec.sampler.name == POOLED:
        asked, most = store.asked_count("search"), budget.trials * study.task_options.examples
        what = "questions"
    else:
        asked, most = len(counted(store.trials())), budget.trials
        what = "trials"
    return _said(asked, most, what) if asked > most * (1 + LATE) + 1 else None


def _said(total: float, limit: float, unit: str) -> str:
    return f"the service ended it: {total:.4g} of {limit:.4g} {unit} are spent"

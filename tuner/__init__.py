"""Finds the agent configurations worth deploying: Pareto-optimal in accuracy, latency and energy.

cli/         one file a verb
export.py    a front point as a file that runs
study.py     the ask/tell loop
executors/   where trials run
samplers/    what is tried next
store/       what is kept
evaluate.py  one config on many examples
spec.py      a study file as validated data
objectives.py, space.py, tasks/, measure/, serving/   what the above are made of
records.py, front.py                                  plain data and arithmetic
"""

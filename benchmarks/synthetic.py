"""A synthetic space of agents whose true front is known: every answer is drawn from a law with the traits of real ones.

Accuracy rises with demonstrations up to a point and with budgets while questions still need steps; latency and energy
multiply along the knobs; questions differ in difficulty, length and kind, alike for all configs; configs deviate from
what their knobs say. Another seed draws another space.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.space import SearchSpace

Floats = npt.NDArray[np.float64]

TRUTH_ON = 3000
"""Questions beyond those asked, which the truth is the average of."""

MODELS = ("small", "large")

_SHOTS = {
    "few_shot": {"low": 0, "high": 6},
    "demonstrations": {"choices": ["fixed", "nearest"], "when": {"few_shot": ">= 1"}},
}

SPACE = SearchSpace.model_validate(
    {
        "format_version": 1,
        "name": "synthetic",
        "workflows": {
            "direct": _SHOTS,
            "cot": {**_SHOTS, "max_tokens": [24, 48, 96]},
            "self_consistency": {**_SHOTS, "samples": [3, 5, 8], "temperature": [0.4, 0.7, 1.0]},
            "react": {**_SHOTS, "thoughts": [False, True], "max_steps": {"low": 1, "high": 10}},
            "lats": {**_SHOTS, "children": [2, 3, 5], "iterations": [1, 2, 4, 6]},
        },
    }
)

_BUDGETS = {"react": "react.max_steps", "lats": "lats.iterations"}

Made = tuple[
    SearchSpace,
    tuple[str, ...],
    tuple[dict[str, Any], ...],
    Floats,
    Floats,
    tuple[tuple[int, ...], ...],
]


def make(seed: int, questions: int) -> Made:
    """The space, its models, the configs as flat parameters, (configs, questions, 3) scores, seconds and Wh,
    (configs, 3) true accuracy, median seconds and mean Wh, and which configs each one's runs cover.
    """
    flats = tuple(dict(flat) for flat in SPACE.flats(MODELS) or ())
    law = _Law(seed, questions + TRUTH_ON)
    families: dict[frozenset[Any], list[int]] = {}
    for place, flat in enumerate(flats):
        budget = _BUDGETS.get(str(flat["workflow"]))
        families.setdefault(
            frozenset(item for item in flat.items() if item[0] != budget), []
        ).append(place)
    amounts = np.zeros((len(flats), questions + TRUTH_ON, 3))
    covers: list[tuple[int, ...]] = [()] * len(flats)
    for places in families.values():
        for place, drawn in zip(places, law.family([flats[p] for p in places]), strict=True):
            amounts[place] = drawn
        if str(flats[places[0]]["workflow"]) in _BUDGETS:
            for place in places:
                name = _BUDGETS[str(flats[place]["workflow"])]
                covers[place] = tuple(p for p in places if flats[p][name] < flats[place][name])
    beyond = amounts[:, questions:]
    truth = np.stack(
        [
            beyond[:, :, 0].mean(axis=1),
            np.median(beyond[:, :, 1], axis=1),
            beyond[:, :, 2].mean(axis=1),
        ],
        axis=1,
    )
    return SPACE, MODELS, flats, amounts[:, :questions].copy(), truth, tuple(covers)


class _Law:
    """What questions and workflows are like in one space."""

    def __init__(self, seed: int, questions: int) -> None:
        rng = self._rng = np.random.default_rng(seed)
        self._questions = questions
        self._hardness = rng.normal(0, 1.2, questions)
        self._kind = rng.integers(0, 3, questions)
        self._length = np.exp(rng.normal(0, 0.3, questions))
        self._hops = 1 + rng.poisson(1.2, questions)
        workflows = ("direct", "cot", "self_consistency", "react", "lats")
        level = dict(zip(workflows, (-1.8, -1.0, -0.2, 0.3, 1.8), strict=True))
        self._level = {name: level[name] + rng.normal(0, 0.3) for name in workflows}
        self._of_kind = {name: rng.normal(0, 0.8, 3) for name in workflows}
        self._nearest = {name: rng.normal(0.4, 0.3) for name in workflows}
        self._shots = {name: abs(rng.normal(0.8, 0.3)) for name in workflows}
        self._enough_shots = {name: int(rng.integers(2, 6)) for name in workflows}

    def family(self, flats: list[dict[str, Any]]) -> list[Floats]:
        """(questions, 3) for each config of one family, which differ in budget only and share their luck."""
        rng, workflow = self._rng, str(flats[0]["workflow"])
        knob = {name.rpartition(".")[2]: value for name, value in flats[0].items()}
        shots, is_nearest = int(knob["few_shot"]), knob.get("demonstrations") == "nearest"
        is_large = knob["model"] == "large"
        level = self._level[workflow] + (0.5 if is_large else -0.5) + rng.normal(0, 0.15)
        level += self._shots[workflow] * np.log1p(min(shots, self._enough_shots[workflow]))
        level -= 0.08 * max(0, shots - self._enough_shots[workflow]) + 0.8 * (shots == 0)
        level += self._nearest[workflow] * is_nearest
        level += {24: -0.8, 48: 0.0, 96: 0.15}.get(knob.get("max_tokens", 48), 0.0)
        level += 0.3 * bool(knob.get("thoughts"))
        if workflow == "self_consistency":
            level += 0.25 * np.log(knob["samples"]) - 1.2 * abs(knob["temperature"] - 0.7)
        if workflow == "lats":
            level += 0.35 * np.log(knob["children"])
        luck = 0.8 * rng.logistic(size=self._questions)
        reach = level - self._hardness + self._of_kind[workflow][self._kind] + luck
        steps = 1 + rng.poisson(np.clip(self._hops - 1 + (0.6 if shots == 0 else 0.1), 0, None))
        prefill = 0.03 + 0.03 * shots * (1.0 if is_nearest else 0.15)
        noise = np.exp(rng.normal(0, 0.1, self._questions) + rng.normal(0, 0.05))
        noise_wh = noise * np.exp(rng.normal(0, 0.05, self._questions))
        found = []
        for flat in flats:
            budget = int(flat.get(_BUDGETS.get(workflow, ""), 1))
            is_right = reach > 0
            if workflow == "react":
                taken = np.minimum(steps, budget)
                a_step = 0.12 + 0.2 * bool(knob["thoughts"]) + 0.4 * prefill
                computing = prefill + taken * a_step
                seconds = computing + 0.15 * taken
                is_right = is_right & (steps <= budget)
            elif workflow == "lats":
                taken = np.minimum(np.maximum(1, steps), budget)
                computing = prefill + 0.5 * knob["children"] * taken
                seconds = prefill + 0.6 * (1 + 0.3 * knob["children"]) * taken
                is_right = reach + 0.5 * np.log(taken) > 0.3
            elif workflow == "self_consistency":
                computing = np.full(self._questions, prefill + 0.24 * knob["samples"])
                seconds = np.full(self._questions, prefill + 0.3 * (0.65 + 0.35 * knob["samples"]))
            else:
                tokens = 0 if workflow == "direct" else knob["max_tokens"]
                seconds = np.full(self._questions, 0.05 * (tokens == 0) + prefill + 0.006 * tokens)
                computing = seconds
            slower, dearer = (2.6, 3.2) if is_large else (1.0, 1.0)
            found.append(
                np.stack(
                    [
                        is_right.astype(float),
                        seconds * self._length * slower * noise,
                        computing * self._length * slower * dearer * noise_wh * 0.003,
                    ],
                    axis=1,
                )
            )
        return found

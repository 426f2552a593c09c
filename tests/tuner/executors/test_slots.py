"""Names that are lent: never twice at once, in turn, by weight, and to nobody for ever."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.executors.slots import Choose
from tuner.executors.slots import IsFree
from tuner.executors.slots import Share
from tuner.executors.slots import Slots


@dataclass(frozen=True)
class Keys:
    keys: frozenset[str]


def all_of(*keys: str) -> Choose[Keys]:
    def choose(is_free: IsFree) -> Keys | None:
        return Keys(frozenset(keys)) if all(map(is_free, keys)) else None

    return choose


def one_of(*keys: str) -> Choose[Keys]:
    def choose(is_free: IsFree) -> Keys | None:
        return next((Keys(frozenset({key})) for key in keys if is_free(key)), None)

    return choose


def joined(slots: Slots, *weights: float) -> list[Share]:
    shares = [Share(weight) for weight in weights]
    for share in shares:
        slots.join(share)
    return shares


@settings(max_examples=50, deadline=None)
@given(
    wanted=st.lists(st.sets(st.sampled_from("abcd"), min_size=1, max_size=3), max_size=12),
    shares=st.integers(1, 3),
)
def test_nothing_is_lent_twice_and_everybody_is_served(
    wanted: Sequence[set[str]], shares: int
) -> None:
    async def run() -> None:
        slots = Slots()
        each = joined(slots, *[1.0] * shares)
        slots.add(*"abcd")
        in_use: Counter[str] = Counter()

        async def use(number: int, keys: set[str]) -> None:
            async with slots.lend(each[number % shares], all_of(*keys)):
                in_use.update(keys)
                assert max(in_use.values()) == 1
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                in_use.subtract(keys)

        await asyncio.gather(*(use(number, keys) for number, keys in enumerate(wanted)))
        assert slots.used == (0, 4)
        assert [share.running for share in each] == [0] * shares
        assert [share.waiting for share in each] == [0] * shares

    asyncio.run(run())


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0)])
async def test_shares_have_slots_for_as_long_as_their_weights_say(weights: Sequence[float]) -> None:
    slots = Slots()
    shares = joined(slots, *weights)
    slots.add("a")
    had = [0, 0]
    over = asyncio.Event()

    async def always(number: int) -> None:
        while not over.is_set():
            async with slots.lend(shares[number], all_of("a")):
                had[number] += 1
                await asyncio.sleep(0.005)
            if sum(had) >= 80:
                over.set()

    # Two of each study wait, so that there is always one of each whose turn it may be.
    await asyncio.gather(*(always(number) for number in (0, 1, 0, 1)))
    assert had[0] / sum(had) == pytest.approx(weights[0] / sum(weights), abs=0.06)


async def test_who_joins_later_does_not_catch_up() -> None:
    slots = Slots()
    first, late = Share(), Share()
    slots.join(first)
    slots.add("a")
    async with slots.lend(first, all_of("a")):
        await asyncio.sleep(0.05)
    slots.join(late)
    assert late.paid_s == first.paid_s > 0.04


async def test_who_needs_what_is_busy_lets_others_by() -> None:
    slots = Slots()
    (share,) = joined(slots, 1.0)
    slots.add("a", "b")
    order: list[str] = []

    async def use(name: str, choose: Choose[Keys]) -> None:
        async with slots.lend(share, choose):
            order.append(name)

    async with slots.lend(share, all_of("a")):
        waiting = asyncio.create_task(use("both", all_of("a", "b")))
        await asyncio.sleep(0)
        await use("b", all_of("b"))
    await waiting
    assert order == ["b", "both"]


async def test_who_needs_much_is_not_passed_over_for_ever() -> None:
    slots = Slots()
    (share,) = joined(slots, 1.0)
    slots.add("a", "b")
    over = asyncio.Event()
    passed = 0

    async def always(key: str) -> None:
        nonlocal passed
        while not over.is_set():
            async with slots.lend(share, all_of(key)):
                passed += 1
                await asyncio.sleep(0.001)

    async def both() -> None:
        async with slots.lend(share, all_of("a", "b")):
            over.set()

    async with asyncio.timeout(10):
        # Two for each name: one always waits as the other gives it back.
        await asyncio.gather(*map(always, "aabb"), both())
    assert passed < 60


async def test_what_is_away_is_lent_to_nobody_until_it_is_back() -> None:
    slots = Slots()
    (share,) = joined(slots, 1.0)
    slots.add("a", "b")
    slots.withdraw("a")
    async with slots.lend(share, one_of("a", "b")) as lent:
        assert lent.keys == {"b"}
        assert slots.lend_now(share, one_of("a", "b")) is None
        waiting = asyncio.create_task(slots.change())
        slots.add("a")
        await waiting
        found = slots.lend_now(share, one_of("a", "b"))
        assert found is not None
        assert found.keys == {"a"}
        slots.give_back(share, found, 0.0)
    assert slots.used == (0, 2)


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    slots = Slots()
    (share,) = joined(slots, 1.0)
    slots.add("a")

    async def use() -> None:
        async with slots.lend(share, all_of("a")):
            await asyncio.sleep(60)

    async with slots.lend(share, all_of("a")):
        waiting = asyncio.create_task(use())
        await asyncio.sleep(0)
        assert share.waiting == 1
    # It has just been granted, and is cancelled before it hears of that.
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (slots.used, share.running, share.waiting) == ((0, 1), 0, 0)


async def test_time_beside_each_other_counts_once() -> None:
    slots = Slots()
    (share,) = joined(slots, 1.0)
    slots.add("a", "b")

    async def use(key: str) -> None:
        async with slots.lend(share, all_of(key)):
            await asyncio.sleep(0.1)

    await asyncio.gather(use("a"), use("b"))
    await asyncio.sleep(0.1)
    await use("a")
    assert 0.2 <= share.busy_s() < 0.29
    assert share.paid_s == pytest.approx(0.3, abs=0.05)

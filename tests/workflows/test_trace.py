from hypothesis import given
from hypothesis import strategies as st

from workflows.trace import union_s

INTERVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ends: (min(ends), max(ends)))
)


@given(INTERVALS)
def test_the_union_counts_every_second_once(intervals: list[tuple[int, int]]) -> None:
    covered = {second for start, end in intervals for second in range(start, end)}
    assert union_s([(float(start), float(end)) for start, end in intervals]) == len(covered)

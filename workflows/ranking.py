"""BM25 over a list of short texts (bm25s behind it); apart, because demonstrations and documents are both ranked by it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case words of a text, as they are indexed."""
    return _WORD.findall(text.lower())


class Ranking:
    """Ranks fixed texts by BM25 (Robertson and Zaragoza, 2009) against a query."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s  # 0.1 s, which an agent that ranks nothing does not need

        self._count = len(texts)
        self._index: Any = bm25s.BM25()
        corpus = [words(text) for text in texts]
        self._known = {word for text in corpus for word in text}
        if self._known:
            self._index.index(corpus, show_progress=False)

    def best(self, query: str, count: int) -> list[int]:
        """Positions of the `count` texts nearest to the query, best first, ties in the order of the texts."""
        known = [word for word in words(query) if word in self._known]
        if not known:
            return list(range(min(count, self._count)))
        scores = self._index.get_scores(known)
        return [int(index) for index in np.argsort(-scores, kind="stable")[:count]]

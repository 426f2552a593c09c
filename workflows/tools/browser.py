"""`search` and `lookup` over a pack's documents, as ReAct defines them (Yao et al., arXiv 2210.03629, section 3.1)."""

from collections.abc import Iterable
from collections.abc import Sequence

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Document
from workflows.ranking import Ranking
from workflows.tools import Tool
from workflows.tools import Toolkit

OPENING_SENTENCES = 5
SIMILAR_TITLES = 5


class Library:
    """Documents by title, shared by all questions."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = documents
        self._by_title = {document.title.casefold(): document for document in documents}
        self._ranking = Ranking([document.title for document in documents])

    def find(self, title: str) -> Document | None:
        """The document of that title, whatever its case."""
        return self._by_title.get(title.strip().casefold())

    def similar(self, title: str) -> list[str]:
        """Titles that BM25 ranks nearest to the one that was missed."""
        return [self._documents[index].title for index in self._ranking.best(title, SIMILAR_TITLES)]


class Browser:
    """One question's view of a library: the open page, and a cursor that walks a keyword's sentences."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._page: Document | None = None
        self._keyword: str | None = None
        self._found: list[str] = []
        self._cursor = 0

    def tools(self) -> Iterable[Tool]:
        """`search` and `lookup`."""
        return (
            Tool("search", "search[title] opens the page of that title", self.search),
            Tool(
                "lookup", "lookup[word] finds that word on the open page", self.lookup, ordered=True
            ),
        )

    async def search(self, title: str) -> str:
        """The page's opening sentences, with the look-up anew; or, the open page staying so, the titles that come close."""
        page = self._library.find(title)
        if page is None:
            return f"Could not find {title}. Similar: {', '.join(self._library.similar(title))}."
        self._page = page
        self._keyword = None
        return " ".join(self._page.sentences[:OPENING_SENTENCES])

    async def lookup(self, keyword: str) -> str:
        """The next sentence of the open page that holds the keyword, "(Result i / n)" before it."""
        if self._page is None:
            return "No page is open. Search for one first."
        keyword = keyword.casefold()
        if keyword != self._keyword:
            self._keyword = keyword
            self._cursor = 0
            self._found = [
                sentence for sentence in self._page.sentences if keyword in sentence.casefold()
            ]
        if self._cursor >= len(self._found):
            return "No more results."
        self._cursor += 1
        return f"(Result {self._cursor} / {len(self._found)}) {self._found[self._cursor - 1]}"


def load(pack: AgentPack) -> Toolkit:
    """A toolkit of `search` and `lookup` over the pack's documents."""
    library = Library(pack.documents)
    return lambda: Browser(library)

"""Pages that grow title by title as rows are read; apart, because the texts under one title are spread over many rows."""

from collections.abc import Iterable

from workflows.agent_pack import Document


class Pages:
    """Sentences by title; whatever its case, since that is how agents open a page."""

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}
        self._sentences: dict[str, dict[str, None]] = {}

    def add(self, title: str, sentences: Iterable[str]) -> None:
        """The sentences join the title's page, but for those that stand there already."""
        self._titles.setdefault(title.casefold(), title)
        self._sentences.setdefault(title.casefold(), {}).update(dict.fromkeys(sentences))

    def documents(self) -> tuple[Document, ...]:
        """The pages, titles spelled as they first came, in the order in which they came."""
        return tuple(
            Document(title=title, sentences=tuple(self._sentences[key]))
            for key, title in self._titles.items()
        )

"""`search`, `click` and `buy` in a shop of a pack's products: the text pages of WebShop (Yao et al., arXiv 2207.01206, section 3.1).

search page --search[keywords]--> results, ten a page --click[asin]--> product --click[description]--> one of its texts
                  click[next >], click[< prev]            click[a value] chooses an option; buy[now] ends

`< prev` leads back along this way, `back to search` to its beginning, and `search` may be used on any page.
WebShop buys by click[buy now]; a tool ends a run always or never, so that buying is a tool of its own here.
"""

import json
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Product
from workflows.errors import ToolError
from workflows.ranking import Ranking
from workflows.ranking import words
from workflows.tools import Tool
from workflows.tools import Toolkit

MOST_RESULTS = 50
RESULTS_PER_PAGE = 10
TITLE_CHARACTERS = 80  # of a title among results: real ones run to 200
TEXT_CHARACTERS = 1000  # of a description or of the features: about 250 tokens

NEXT = "next >"
PREVIOUS = "< prev"
BACK = "back to search"
TEXTS = ("description", "features")


class Catalogue:
    """Products and the index over their texts, shared by all questions."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self._ranking = Ranking([_indexed(product) for product in products])

    def search(self, keywords: str) -> tuple[Product, ...]:
        """The products that BM25 ranks nearest to the keywords, at most 50, each with a keyword in its texts."""
        wanted = set(words(keywords))
        nearest = (self._products[index] for index in self._ranking.best(keywords, MOST_RESULTS))
        return tuple(product for product in nearest if wanted & set(words(_indexed(product))))


@dataclass(frozen=True, slots=True)
class Page:
    """Where a shopper stands; `product` is None among the results, `results` None on the search page."""

    results: tuple[Product, ...] | None = None
    number: int = 1
    product: Product | None = None
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Option to value, as far as chosen."""
    text: str | None = None
    """The one of TEXTS that is shown, None on the product's own page."""


class Shop:
    """One question's visit to the shop: the page that it stands on."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._page = Page()

    def tools(self) -> Iterable[Tool]:
        """`search`, `click` and `buy` on this visit."""
        return (
            Tool("search", "search[keywords] lists products", self.search),
            Tool(
                "click",
                "click[name] opens a product or presses a button or option that is shown",
                self.click,
                ordered=True,
            ),
            Tool(
                "buy",
                "buy[now] ends by buying the open product with the chosen options",
                self.buy,
                ends=True,
                ordered=True,
            ),
        )

    async def search(self, keywords: str) -> str:
        """The first page of results. Raises ToolError where no product has any of the keywords."""
        results = self._catalogue.search(keywords)
        if not results:
            raise ToolError(f"No results for {keywords!r}. Search for other words.")
        return self._show(Page(results=results))

    async def click(self, name: str) -> str:
        """The page that this leads to. Raises ToolError for a name that the page does not show."""
        name = name.strip().casefold()
        page = self._page
        if name == "buy now":
            raise ToolError("To buy the open product, use buy[now].")
        if name not in _buttons(page):
            clicked = _option(page, name) if page.product else _result(page, name)
            if clicked is None:
                raise ToolError(f"Nothing here is called {name!r}. {_help(page)}")
            return self._show(clicked)
        if name == BACK:
            return self._show(Page())
        if name == NEXT:
            return self._show(replace(page, number=page.number + 1))
        if name != PREVIOUS:
            return self._show(replace(page, text=name))
        if page.text:
            return self._show(replace(page, text=None))
        if page.product:
            return self._show(Page(results=page.results, number=page.number))
        return self._show(replace(page, number=page.number - 1))

    async def buy(self, what: str) -> str:
        """The purchase as one line of JSON: asin, and option to value in the product's order.

        Raises ToolError where no product's own page is open, or another product is named.
        """
        product = self._page.product
        if product is None:
            raise ToolError("No product is open. Click one first.")
        if self._page.text:
            raise ToolError(f"Click {PREVIOUS} first: buying is done on the product's own page.")
        if what.strip().casefold() not in ("now", product.asin.casefold()):
            raise ToolError(f"The open product is {product.asin}. Use buy[now] to buy it.")
        return purchase(product, self._page.chosen)

    def _show(self, page: Page) -> str:
        self._page = page
        return _observation(page)


def purchase(product: Product, chosen: Mapping[str, str]) -> str:
    """What `buy` answers: the one way of writing that purchase."""
    options = {name: chosen[name] for name, _ in product.options if name in chosen}
    return json.dumps({"asin": product.asin, "options": options}, ensure_ascii=False)


def load(pack: AgentPack) -> Toolkit:
    """A toolkit of `search`, `click` and `buy` over the pack's products."""
    catalogue = Catalogue(pack.products)
    return lambda: Shop(catalogue)


def _indexed(product: Product) -> str:
    options = (f"{name} {' '.join(values)}" for name, values in product.options)
    return " ".join((product.title, product.description, *product.features, *options))


def _shown(page: Page) -> tuple[Product, ...]:
    start = (page.number - 1) * RESULTS_PER_PAGE
    return (page.results or ())[start : start + RESULTS_PER_PAGE]


def _pages(page: Page) -> int:
    return -(-len(page.results or ()) // RESULTS_PER_PAGE)


def _result(page: Page, name: str) -> Page | None:
    for product in _shown(page):
        if product.asin.casefold() == name:
            return replace(page, product=product)
    return None


def _option(page: Page, name: str) -> Page | None:
    """The page with the option chosen whose value, or "option: value", this is; of several the first."""
    if page.product is None or page.text:
        return None
    for option, values in page.product.options:
        for value in values:
            if name in (value.casefold(), f"{option}: {value}".casefold()):
                return replace(page, chosen={**page.chosen, option: value})
    return None


def _buttons(page: Page) -> list[str]:
    if page.results is None:
        return []
    if page.text:
        return [PREVIOUS, BACK]
    if page.product:
        texts = [text for text in TEXTS if getattr(page.product, text)]
        return [*texts, PREVIOUS, BACK]
    turns = [PREVIOUS] if page.number > 1 else []
    if page.number < _pages(page):
        turns.append(NEXT)
    return [*turns, BACK]


def _help(page: Page) -> str:
    if page.results is None:
        return "Search first."
    if page.text:
        what = "Click"
    elif page.product:
        what = "Click an option's value," if page.product.options else "Click"
    else:
        what = "Click a product of this page,"
    return f"{what} {' or '.join(_buttons(page))}."


def _observation(page: Page) -> str:
    """The page on one line. Values stand between slashes, which no value of WebShop's holds."""
    if page.results is None:
        return "Search page."
    parts = []
    if page.product is None:
        parts.append(f"Page {page.number} of {_pages(page)}")
        parts += [
            f"{one.asin}: {_cut(one.title, TITLE_CHARACTERS)}, {_price(one)}"
            for one in _shown(page)
        ]
    elif page.text:
        text = getattr(page.product, page.text)
        parts.append(_cut(text if isinstance(text, str) else " ".join(text), TEXT_CHARACTERS))
    else:
        parts.append(f"{page.product.asin}: {page.product.title}, {_price(page.product)}")
        for name, values in page.product.options:
            shown = (f"{one} (chosen)" if page.chosen.get(name) == one else one for one in values)
            parts.append(f"{name}: {' / '.join(shown)}")
    return f"{'; '.join(parts)} (buttons: {', '.join(_buttons(page))})"


def _price(product: Product) -> str:
    return f"${product.price:.2f}"


def _cut(text: str, characters: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= characters else f"{text[: characters - 1].rstrip()}…"

"""The page in a browser: by pointer and by keyboard, on a phone, in the dark, on paper, and without faults of accessibility."""

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLOT = "#pairs figure:not(.off) svg"


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser):
    """Opens a page and waits until it is drawn; what it asks for, logs or throws is a failure in the end."""
    contexts, faults = [], []

    async def opened(path, *, width=1280, height=900, hash="", **options):
        context = await browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = await context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("request", lambda request: _expect_own(request, path, faults))
        await page.goto(f"{path.as_uri()}{hash}")
        await page.wait_for_function("document.documentElement.dataset.drawn")
        return page

    yield opened
    for context in contexts:
        await context.close()
    assert faults == []


def _expect_own(request, path, faults):
    if request.url.partition("#")[0] != path.as_uri():
        faults.append(f"asked for {request.url}")


@pytest.fixture
def path(kinds, write, tmp_path):
    """The page of a study with a point of every kind."""
    write(kinds, tmp_path / "report.html")
    return tmp_path / "report.html"


async def test_a_click_on_a_point_opens_its_config_and_runs_and_a_run_its_timeline(visit, path):
    page = await visit(path)
    point = page.locator(f'{PLOT} .point[data-trial="5"]')
    await point.scroll_into_view_if_needed()
    box = await point.bounding_box()
    await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    panel = page.locator("dialog[open]")
    assert "max_steps" in await panel.inner_text()
    text = await panel.inner_text()
    for expected in (
        "Trial 5",
        "beyond its bound by",
        "Where is page",
        "Elm",
        "4 answers to search questions",
    ):
        assert expected in text
    await panel.locator("button[data-run]").first.click()
    await panel.locator(".timeline > svg").wait_for()
    assert await panel.locator(".timeline [data-call]").count() == 2
    text = await panel.inner_text()
    assert "Where the time and the joules went" in text
    assert "A village.\n[slow]" in text
    await panel.locator("button", has_text="← Trial 5").click()
    await panel.locator("h3", has_text="Runs").wait_for()
    await panel.get_by_label("close").click()
    assert await page.locator("dialog[open]").count() == 0


async def test_the_keyboard_reaches_everything_by_one_stop_a_plot(visit, path):
    page = await visit(path)
    stops = await page.evaluate(
        f"""() => [...document.querySelectorAll('{PLOT} [data-stop]')].filter((n) => n.tabIndex === 0).length"""
    )
    assert stops == 1
    for _ in range(80):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.closest('#pairs') !== null"):
            break
    first = await page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "recommended" in first
    outline = await page.evaluate(
        "getComputedStyle(document.activeElement.querySelector('.ring')).display"
    )
    assert outline == "block"
    await page.keyboard.press("ArrowRight")
    second = await page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert second != first
    assert second.partition(",")[0] in await page.locator("#tip").inner_text()
    await page.keyboard.press("Home")
    await page.keyboard.press("Enter")
    panel = page.locator("dialog[open]")
    await panel.wait_for()
    assert await page.evaluate("document.activeElement.id") == "panel-title"
    await panel.locator("button[data-run]").first.focus()
    await page.keyboard.press("Enter")
    await panel.locator(".timeline").wait_for()
    await panel.locator('.timeline [tabindex="0"]').focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press(" ")
    assert await page.evaluate("document.activeElement.dataset.turn") == "1"
    await page.keyboard.press("Escape")
    await panel.wait_for(state="detached")
    assert await page.evaluate("document.activeElement.closest('#pairs') !== null")


async def test_the_legend_tells_kinds_apart_by_shape_and_hides_them(visit, path):
    page = await visit(path)
    shapes = await page.evaluate(
        "() => [...document.querySelectorAll('#legend button svg')].map((n) => [...n.children].map((c) => c.getAttribute('d') + c.getAttribute('fill-opacity') + c.getAttribute('stroke-dasharray')).join())"
    )
    tags = await page.evaluate(
        "() => [...document.querySelectorAll('#legend button')].map((n) => n.dataset.tag)"
    )
    assert set(tags) == {
        "front",
        "near",
        "beaten",
        "infeasible",
        "stopped",
        "holdout",
        "derived",
        "reused",
        "oracle",
    }
    assert len(set(shapes)) == len(tags)
    shown = f"{PLOT} .point:not(.gone)"
    before = await page.locator(shown).count()
    await page.locator('#legend [data-tag="beaten"]').click()
    assert await page.locator(shown).count() < before
    assert (
        await page.locator('#legend [data-tag="beaten"]').get_attribute("aria-pressed") == "false"
    )


async def test_every_pair_of_objectives_and_every_objectives_effects_can_be_chosen(visit, path):
    page = await visit(path)
    assert await page.locator("#pairs figure").count() == 3
    await page.get_by_label("accuracy × energy").check()
    labels = await page.locator("#pairs figure:not(.off)").text_content()
    assert "energy, Wh/query" in labels
    assert "accuracy, %" in labels
    assert await page.locator("#effects figure").count() == 3
    assert await page.locator("#parallel polyline").count() == 12


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1280, "dark")])
async def test_the_body_never_scrolls_sideways(visit, path, width, scheme):
    page = await visit(path, width=width, height=800, color_scheme=scheme)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.locator("button.open").first.click()
    await page.locator("dialog[open]").wait_for()
    assert await page.evaluate("document.querySelector('dialog').scrollWidth") <= width
    await page.locator("dialog button[data-run]").first.click()
    await page.locator(".timeline").wait_for()
    assert await page.evaluate("document.querySelector('dialog').scrollWidth") <= width


async def test_it_is_dark_where_the_reader_is(visit, path):
    papers = []
    for scheme in ("light", "dark"):
        page = await visit(path, color_scheme=scheme)
        papers.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(18, 21, 24)"]


async def test_paper_has_every_pair_and_no_controls(visit, path):
    page = await visit(path)
    pdf = await page.pdf()
    assert pdf.startswith(b"%PDF")
    assert not await page.locator("details[data-print][open]").count()
    await page.emulate_media(media="print")
    visible = "(s) => [...document.querySelectorAll(s)].filter((n) => n.checkVisibility()).length"
    assert await page.evaluate(visible, "#pairs figure") == 3
    assert await page.evaluate(visible, "nav, .controls, dialog") == 0
    assert await page.evaluate(visible, "#legend button") == 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("hash", ["", "#trial-2", "#trial-2/holdout/0"])
async def test_axe_finds_no_serious_fault(visit, path, scheme, hash):
    from axe_playwright_python.async_playwright import Axe

    page = await visit(path, color_scheme=scheme, hash=hash, reduced_motion="reduce")
    if hash:
        await page.locator("dialog[open]").wait_for()
    else:
        await page.evaluate(
            "for (const each of document.querySelectorAll('details')) each.open = true"
        )
    results = await Axe().run(page)
    faults = [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]][:3])
        for fault in results.response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert faults == []


async def test_what_a_model_wrote_is_shown_as_it_is(visit, hostile, write, tmp_path):
    write(hostile, tmp_path / "report.html")
    page = await visit(tmp_path / "report.html", hash="#trial-0/search/0")
    panel = page.locator("dialog[open]")
    await panel.locator(".timeline").wait_for()
    assert "</script><img src=x onerror=alert(1)>" in await panel.inner_text()
    assert await page.locator("img").count() == 0

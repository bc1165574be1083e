"""The page in a real browser: sort, filter, open a strategy, change colours, on a phone; no error, no network."""

import json
import os
import shutil

import pytest
from invented import write_suite
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from labeldrop_bench import leaderboard
from labeldrop_bench.records import SuiteConfig

SUITE = SuiteConfig.model_validate(
    {
        "name": "seen",
        "title": "Seen in a browser",
        "seeds": [0, 1],
        "data": {"name": "phantom", "hidden": {"B": ["LA"]}},
        "strategies": [
            {"name": "full", "loss": "ce", "full_labels": True},
            {"name": "standard", "loss": "ce"},
            {"name": "adaptive", "loss": "adaptive_ce"},
            {"name": "adaptive + dropout 0.3", "loss": "adaptive_ce", "dropout": 0.3},
            {"name": "marginal", "loss": "marginal_ce"},
            {"name": "unfinished, 100 % \N{EM DASH} é", "loss": "marginal_ce", "dropout": 0.3},
        ],
    }
)
UNFINISHED = SUITE.strategies[-1].name
SECONDS = (
    20  # that a browser may take on a busy machine to do what an event asks for: it comes after the click's return
)
PHONE = {"width": 375, "height": 700, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of the page of an invented suite, one strategy of which is not finished."""
    directory = tmp_path_factory.mktemp("seen")
    missing = [run.run for run in SUITE.runs() if run.strategy.name == UNFINISHED and run.seed == 1]
    write_suite(directory, SUITE, domains={"A": ("LV", "LA"), "B": ("LV", "LA")}, cases=16, missing=missing)
    path = directory / "leaderboard.html"
    path.write_text(leaderboard.render(leaderboard.load(directory), "html"))
    return path.as_uri()


@pytest.fixture(scope="module")
def started():
    """Chromium without a window."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        reason = "the page is tested in Chromium: apt-get install chromium chromium-driver"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def browser(started, page):
    """The page as if it had just been opened; afterwards it has complained of nothing and asked for nothing."""
    started.get("about:blank")
    for log in ("browser", "performance"):
        started.get_log(log)  # what came before
    started.get(page)
    yield started
    events = [json.loads(entry["message"])["message"] for entry in started.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert page in [url.partition("#")[0] for url in asked]  # requests are seen
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert [entry for entry in started.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def find(browser, selector):
    return browser.find_element("css selector", selector)


def column(browser, name):
    """Texts of a column of the table, in the rows that are shown."""
    return browser.execute_script(
        """const heads = [...document.querySelectorAll(".board thead th")];
        const place = heads.findIndex((head) => head.innerText.split(" ")[0].trim() === arguments[0]);
        return [...document.querySelectorAll(".board tbody tr")].filter((row) => row.offsetParent !== null)
          .map((row) => row.cells[place].innerText.split("\\n")[0].trim());""",
        name,
    )


def press(browser, name):
    """Press the button in the head of a column, with the keyboard; what the head says of the order."""
    buttons = browser.find_elements("css selector", ".board thead button")
    (button,) = [b for b in buttons if b.get_property("innerText").strip() == name]
    button.send_keys("\ue007")  # Enter
    return button.find_element("xpath", "..").get_attribute("aria-sort")


def test_sorts_by_a_column_with_what_is_missing_last(browser):
    at_first = column(browser, "strategy")
    assert at_first[0] == "full"
    assert at_first[-1] == UNFINISHED
    assert press(browser, "annotated") == "descending"
    values = column(browser, "annotated")
    assert values[-1] == "—"
    numbers = [float(value) for value in values[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert press(browser, "annotated") == "ascending"
    turned = column(browser, "annotated")
    assert turned[-1] == "—"
    assert turned[:-1] == values[-2::-1]
    assert press(browser, "HD95 (pixels)") == "ascending"  # lower is better
    assert len(browser.find_elements("css selector", ".board [aria-sort]")) == 1
    assert press(browser, "#") == "ascending"
    assert column(browser, "#") == ["1", "2", "3", "4", "—", "—"]
    assert find(browser, ".board tr.full th").text.startswith("full")
    assert column(browser, "strategy")[:4] == at_first[1:5]


def test_filters_by_words_loss_and_dropout(browser):
    count = find(browser, "output")
    assert count.text == "6 of 6 strategies"
    words = find(browser, "input[name=words]")
    words.send_keys("ADAPT drop")
    assert column(browser, "strategy") == ["adaptive + dropout 0.3"]
    assert count.text == "1 of 6 strategies"
    words.clear()
    words.send_keys(" ")
    find(browser, "select[name=loss]").send_keys("marginal_ce")
    assert column(browser, "strategy") == ["marginal", UNFINISHED]
    find(browser, "select[name=dropout]").send_keys("0.3")
    assert column(browser, "strategy") == [UNFINISHED]


def is_open_and_seen(browser, slug):
    return browser.execute_script(
        """const section = document.getElementById(arguments[0]);
        const box = section.getBoundingClientRect();
        return section.querySelector("details").open && box.top < innerHeight && box.bottom > 0;""",
        f"strategy-{slug}",
    )


def soon(browser, slug):
    """Raises TimeoutException if the strategy does not open and come into view."""
    WebDriverWait(browser, SECONDS).until(lambda _: is_open_and_seen(browser, slug))


def test_opens_a_strategy_from_the_table(browser):
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    assert not is_open_and_seen(browser, "adaptive")
    link = browser.find_element("link text", "adaptive")
    link.click()
    soon(browser, "adaptive")
    assert not is_open_and_seen(browser, "marginal")
    browser.execute_script("document.querySelector('#strategy-adaptive details').open = false; scrollTo(0, 0)")
    link.click()  # the address does not change
    soon(browser, "adaptive")
    svg = "#strategy-adaptive svg"
    assert len([s for s in browser.find_elements("css selector", svg) if s.is_displayed()]) == 3


@pytest.mark.parametrize("strategy", ["standard", UNFINISHED])
def test_address_opens_a_strategy(browser, page, strategy):
    slug = leaderboard.html.slug(strategy)
    browser.get("about:blank")
    browser.get(f"{page}#strategy-{slug}")
    WebDriverWait(browser, SECONDS).until(
        lambda _: browser.execute_script(
            "return document.getElementById(arguments[0]).querySelector('details').open", f"strategy-{slug}"
        )
    )


def background(browser):
    """Lightness of the page from 0 to 1, and of the paper of its first figure."""
    colours = browser.execute_script(
        """return ["body", ".drawing svg path"].map((s) => {
          const style = getComputedStyle(document.querySelector(s));
          return s === "body" ? style.backgroundColor : style.fill; });"""
    )
    return [sum(map(int, colour[4:-1].split(","))) / 765 for colour in colours]


def test_light_and_dark(browser):
    def prefer(scheme):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    try:
        prefer("light")
        assert background(browser) == [1, 1]
        prefer("dark")
        assert max(background(browser)) < 0.2
        find(browser, "#theme").click()
        assert background(browser) == [1, 1]  # though the system is dark
        find(browser, "#theme").click()
        assert max(background(browser)) < 0.2
        assert browser.execute_script("return localStorage.length + document.cookie.length") == 0
    finally:
        prefer("light")


def test_fits_a_phone(browser):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        browser.execute_script("document.querySelectorAll('details').forEach((details) => details.open = true)")
        width, inner = browser.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
        assert inner == PHONE["width"]
        assert width <= inner
        table = "document.querySelector('.board').parentElement"
        assert browser.execute_script(f"return {table}.scrollWidth > {table}.clientWidth")  # the table scrolls
        browser.execute_script(f"{table}.scrollLeft = 300")
        left = "return document.querySelector('.board tbody th').getBoundingClientRect().left"
        assert 0 <= browser.execute_script(left) < PHONE["width"] / 4  # and the names stay
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

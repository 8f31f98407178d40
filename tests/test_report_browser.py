"""The report in a real browser: it fits, draws, and asks for nothing."""

import shutil

import keras
import pytest

import keras_iss

pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    BROWSER is None or keras.backend.backend() == "jax",
    reason="there is no browser, or once is enough",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            keras.layers.LSTM(8, return_sequences=True, name="first"),
            keras.layers.LSTM(8, name="a_layer_with_quite_a_long_name" * 2),
            keras.layers.Dense(2),
        ]
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    history = {
        "val_loss": [3.0, 2.0, 1.0],
        "first_alive": [8, 6, 5],
        "alive_units": [16, 14, 13],
    }
    small = keras_iss.shrink(model, keep={"first": 5})
    keras_iss.report(
        small, path, before=model, history=history, command="long " * 60
    )
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_and_draws_and_asks_for_nothing(page, width, scheme):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"]
        )
        view = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        asked, said = [], []
        view.on("request", lambda request: asked.append(request.url))
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.goto(page.as_uri())
        view.wait_for_selector(".picture .main-svg")
        assert asked == [page.as_uri()] and not said
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        pictures = view.locator(".picture")
        assert pictures.count() >= 6
        for i in range(pictures.count()):
            box = pictures.nth(i).bounding_box()
            drawn = pictures.nth(i).locator(".main-svg").first.bounding_box()
            assert 0 < drawn["width"] <= box["width"] + 1
        ink = view.evaluate("getComputedStyle(document.body).color")
        dark = sum(map(int, ink.strip("rgb()").split(","))) > 380
        assert dark == (scheme == "dark")
        # Values show where one points.
        for section in ("training", "weights"):
            picture = view.locator(f"#{section} .picture .main-svg").first
            picture.scroll_into_view_if_needed()
            box = picture.bounding_box()
            for part in (0.4, 0.45):
                view.mouse.move(
                    box["x"] + box["width"] * part,
                    box["y"] + box["height"] * 0.4,
                    steps=5,
                )
                view.wait_for_timeout(100)
            view.wait_for_function(
                "name => document.querySelector(`#${name} .hoverlayer > *`)",
                arg=section,
            )
        browser.close()

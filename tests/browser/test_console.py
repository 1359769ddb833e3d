"""The console in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

PAGES = (
    "/",
    "/tables/flights",
    "/features",
    "/features/airport_weather",
    "/models/late_arrival",
    "/models/late_arrival/versions/3",
    "/predictions",
    "/audit",
    "/nothing",
)


def test_the_one_time_address_opens_the_console_once(watched: Any, platform: Any, chromium: Any) -> None:
    address = platform.logins.pop()
    page = watched.page
    page.goto(address)
    assert page.url == platform.url + "/"
    expect(page.get_by_role("heading", level=1)).to_have_text("flights")
    assert "code=" not in page.content()
    stranger = chromium.new_context()
    other = stranger.new_page()
    other.goto(address)
    expect(other.get_by_role("alert")).to_contain_text("used already")
    other.goto(platform.url + "/models/late_arrival")
    assert "/login?next=" in other.url
    stranger.close()
    assert watched.complaints == []


def test_from_the_table_to_the_receipt(signed_in: Any, platform: Any) -> None:
    page = signed_in.page
    for stage in ("Tables", "Features", "Models", "Deployment"):
        expect(page.get_by_role("heading", name=stage)).to_be_visible()
    assert page.locator("svg.edges path.tip").count() >= 12
    page.get_by_role("link", name="Make a prediction").click()
    page.get_by_label("origin").fill("LGA")
    page.get_by_role("button", name="Predict").click()
    answer = page.get_by_role("status")
    expect(answer).to_contain_text("No")
    expect(answer).to_contain_text("11.9%")
    expect(answer).to_be_focused()
    assert page.get_by_label("origin").input_value() == "LGA"
    answer.get_by_role("link", name="See everything behind it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("No, 11.9%")
    expect(page.get_by_role("row", name="airport_traffic__mean_delay_1h")).to_contain_text("2013-12-20 22:06:00 UTC")
    assert signed_in.complaints == []


def test_features_are_found_while_one_types(signed_in: Any, platform: Any) -> None:
    page = signed_in.page
    page.get_by_role("link", name="Features").click()
    found = page.locator("#features h2")
    expect(found).to_have_text("11 features")
    page.get_by_label("Search names").fill("tag:weather")
    expect(found).to_contain_text("3 features")
    assert "search=tag" in page.url
    page.get_by_role("link", name="temp", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("airport_weather")
    expect(page.locator("tr:target")).to_contain_text("temp")
    assert signed_in.complaints == []


def test_what_was_typed_before_the_scripts_came_is_searched_for(signed_in: Any, platform: Any) -> None:
    page = signed_in.page
    held: list[Any] = []
    page.route("**/htmx.min.js", lambda route: held.append(route))  # noqa: PLW0108 -- a bound method cannot be wrapped
    page.goto(platform.url + "/features", wait_until="commit")
    page.get_by_label("Search names").fill("tag:weather")
    expect(page.locator("#features h2")).to_have_text("11 features")
    held.pop().continue_()
    expect(page.locator("#features h2")).to_contain_text("3 features")
    assert signed_in.complaints == []


def test_errors_stand_beside_their_fields(signed_in: Any, platform: Any) -> None:
    page = signed_in.page
    page.goto(platform.url + "/models/late_arrival")
    page.get_by_label("origin").fill("")
    page.get_by_label("carrier").fill("UA")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#e-origin")).to_have_text("origin is needed.")
    origin = page.get_by_label("origin")
    expect(origin).to_have_attribute("aria-invalid", "true")
    assert page.get_by_label("carrier").input_value() == "UA"
    origin.fill("Kennedy")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#e-origin")).to_contain_text("'Kennedy' is no airport.")
    origin.fill("JFK")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_contain_text("62.3%")
    assert signed_in.complaints == []


def test_the_form_works_without_scripts(chromium: Any, platform: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(platform.url + "/login")
    page.get_by_label("Access token").fill(platform.token)
    page.get_by_role("button", name="Sign in").click()
    page.goto(platform.url + "/models/late_arrival")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_contain_text("62.3%")
    context.close()


def test_the_report_is_shown_but_cannot_reach_the_console(signed_in: Any, platform: Any) -> None:
    page = signed_in.page
    page.goto(platform.url + "/models/late_arrival/versions/3")
    page.locator("iframe").scroll_into_view_if_needed()
    report = page.frame_locator("iframe")
    expect(report.locator("#script")).to_have_text("script ran")
    expect(report.locator("h1")).to_contain_text("late_arrival")
    frame = next(frame for frame in page.frames if frame.url.endswith("/report"))
    assert frame.title() == "kept apart"
    reached = frame.evaluate("fetch('/api/v1/whoami').then(r => r.status, () => 'refused')")
    assert reached == "refused"


def test_another_site_can_do_nothing_with_the_session(signed_in: Any, platform: Any, tmp_path: Any) -> None:
    """A page of another port of this host sends a form and a script's request; the cookie goes with the form."""
    import functools
    import http.server
    import threading

    (tmp_path / "evil.html").write_text(
        f'<form method="post" action="{platform.url}/models/late_arrival/versions/1/promote">'
        '<input name="why" value="mischief"><button>x</button></form>'
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page = signed_in.page
        page.goto(f"http://127.0.0.1:{other.server_address[1]}/evil.html")
        fetch = f"fetch('{platform.url}/api/v1/overview', {{credentials: 'include'}})"
        assert page.evaluate(fetch + ".then((answer) => answer.text(), () => 'refused')") == "refused"
        with page.expect_navigation() as navigation:
            page.get_by_role("button").click()
        assert navigation.value.status == 403
        other.shutdown()
    page.goto(platform.url + "/audit")
    expect(page.get_by_text("mischief")).to_have_count(0)


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_can_be_read(signed_in: Any, platform: Any, width: int, scheme: str) -> None:
    page = signed_in.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        page.goto(platform.url + path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{path} is too wide"
        faint = page.evaluate(CONTRAST)
        assert faint == [], f"{path}, {scheme}"
    assert signed_in.complaints == []


def test_keys_lead_through_the_page(signed_in: Any, platform: Any) -> None:
    page = signed_in.page
    page.goto(platform.url + "/models/late_arrival")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "Predict":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_be_visible()


#: Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.2, AA), with the ratio.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 };
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const e of document.querySelectorAll("body *")) {
    const said = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!said || e.closest("svg, select, option") || !e.checkVisibility()) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) faint.push(`${e.tagName} ${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(faint)];
}"""

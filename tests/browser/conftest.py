from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
WAIT = 15_000  # milliseconds, for what a page is asked to show
RUN = Path(__file__).parent.parent / "integration" / "server" / "run_faces_example.py"


@dataclass
class Platform:
    """The platform in a process of its own.

    Attributes:
        url: Its address.
        token: The administrator's.
        logins: One-time addresses that have not been used.
    """

    url: str
    token: str
    logins: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    state = tmp_path_factory.mktemp("browser") / ".millpond"
    process = subprocess.Popen([sys.executable, str(RUN), str(state), "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    yield Platform(said["url"], said["token"], [said["login_url"]])
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.fixture(scope="module")  # its event loop must be gone before other modules run theirs
def chromium() -> Iterator[Browser]:
    """A real browser; never left out silently."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT)
    if not CHROMIUM.exists():
        pytest.fail(f"There is no browser at {CHROMIUM}: install the Debian package `chromium`.", pytrace=False)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what went wrong on it.

    Attributes:
        page: The page.
        complaints: What the browser's console said (errors of scripts, refusals by the content policy), and requests
            that went to other servers.
    """

    page: Page
    complaints: list[str]


@pytest.fixture
def watched(chromium: Browser, platform: Platform) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT)
    page = context.new_page()
    complaints: list[str] = []

    def hear(kind: str, text: str) -> None:
        # A refused form is said in the console too; it is what was asked for.
        if kind == "error" and "status of 4" not in text:
            complaints.append(text)

    def see(url: str) -> None:
        if not url.startswith((platform.url, "data:", "blob:")):
            complaints.append(f"request to {url}")

    page.on("console", lambda message: hear(message.type, message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: see(request.url))
    yield Watched(page, complaints)
    context.close()


@pytest.fixture
def signed_in(watched: Watched, platform: Platform) -> Watched:
    watched.page.goto(platform.url + "/login")
    watched.page.get_by_label("Access token").fill(platform.token)
    watched.page.get_by_role("button", name="Sign in").click()
    watched.page.wait_for_url(platform.url + "/")
    return watched

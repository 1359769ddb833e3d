"""What the documentation tells people to type is typed here, in order, in a new folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<kind>\w+)(?P<rest>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[tuple[str, str, str]]:
    return [(found["kind"], found["rest"].strip(), found["body"]) for found in FENCE.finditer(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_followed(page, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("MILLPOND_PROJECT", None)
    for kind, rest, body in blocks(page):
        if kind == "python" and rest.startswith("file="):
            (tmp_path / rest.removeprefix("file=")).write_text(body)
        elif kind == "python" and rest != "outside":
            subprocess.run([sys.executable, "-c", body], check=True, cwd=tmp_path, env=environment, timeout=60)
        elif kind == "sh" and rest != "outside":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", body],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=240,
            )
            assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_definitions_of_the_tutorial_are_short():
    page = ROOT / "docs" / "tutorials" / "first-model.md"
    [definitions] = [body for _, rest, body in blocks(page) if rest == "file=definitions.py"]
    assert len([line for line in definitions.splitlines() if line.strip()]) < 40

"""README and docs: length, links, examples, and what the site's build refuses."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("examples/*.md"),
    ROOT / "perf" / "README.md",
]
SHOWN = {
    "README.md": ("subscribe.py", "subscribe.js"),
    "docs/alerts.md": ("risk.py",),
    "docs/clients.md": ("subscribe.py", "subscribe.js", "frontend.html", "quant.py", "risk.py"),
    "docs/getting-started.md": ("subscribe.py", "subscribe.js", "subscribe_plain.py", "events.js", "poll.py"),
    "docs/push.md": ("publish.py", "publish_plain.py"),
    "docs/tap.md": ("tap.py",),
}
LANGUAGES = {"py": "python", "js": "js", "html": "html"}


def prose(page):
    """Return the text of ``page`` without code blocks and code spans."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].strip("`") if "](" not in code[0] else "", text)


def anchors(page):
    """Return the anchors of the headings of ``page``, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_example_is_shown_and_described():
    examples = {path.name for path in (ROOT / "examples").iterdir() if path.suffix[1:] in LANGUAGES}
    assert examples == {name for names in SHOWN.values() for name in names}
    described = re.findall(r"^\| `(\S+)`", (ROOT / "examples" / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(described) == sorted(examples)


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, names in SHOWN.items() for name in names])
def test_a_page_shows_the_example_as_it_is(page, name):
    language = LANGUAGES[name.rpartition(".")[2]]
    block = f"```{language}\n{(ROOT / 'examples' / name).read_text('utf-8')}```\n"
    assert (ROOT / page).read_text("utf-8").count(block) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", path):
            continue
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_pages_of_the_site_link_to_pages_of_the_site_only(page):
    assert "](../" not in prose(page)


def test_every_page_can_be_found_from_the_readme_and_from_the_index():
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}
    readme = (ROOT / "README.md").read_text("utf-8")
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert {page for page in pages if f"(docs/{page})" in readme} == pages
    assert {page for page in pages if f"({page})" in index} == pages


def site_hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://elsewhere/a"></script>',
        "<script async src=https://elsewhere/a></script>",
        "<img alt=x src='//elsewhere/a'>",
        '<link rel="stylesheet" href="https://elsewhere/a">',
        '<link href="https://elsewhere/a" rel=preconnect>',
        "a { background: url(https://elsewhere/a) }",
        '@import "http://elsewhere/a";',
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(text):
    (found,) = site_hooks().loaded_from_elsewhere(text)
    assert found.endswith("//elsewhere/a")


@pytest.mark.parametrize(
    "text",
    [
        '<a href="https://elsewhere/a">a link is followed by hand</a>',
        '<script src="../assets/a.js"></script><link rel="stylesheet" href="a.css">',
        '<link rel="canonical" href="https://elsewhere/a">',
        "a { background: url(data:image/png;base64,AA//BB) }",
    ],
)
def test_what_a_page_has_itself_or_links_to_is_not(text):
    assert site_hooks().loaded_from_elsewhere(text) == []


def test_every_page_is_in_the_navigation_of_the_site():
    listed = re.findall(r"- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in ROOT.glob("docs/*.md"))


def test_every_test_that_the_page_on_security_names_exists():
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z0-9_/]*test_[a-z0-9_]+\.py)`", page))
    assert len(named) > 20
    assert not [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()]

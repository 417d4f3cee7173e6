"""Hooks of the site's build: plain docstrings, and no page that loads something from another host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

ADDRESS: Final = r"""["']?((?:https?:)?//[^"'\s>)]+)"""
LOADED: Final = re.compile(
    rf"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc\s*=\s*{ADDRESS}"
    r"""|<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|icon|preload|preconnect|manifest))"""
    rf"[^>]*\bhref\s*=\s*{ADDRESS}"
    rf"|url\(\s*{ADDRESS}"
    rf"|@import\s+{ADDRESS}",
    re.IGNORECASE,
)
ROLE: Final = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code)")


def loaded_from_elsewhere(text: str) -> list[str]:
    """Return the addresses on other hosts that a page or style sheet loads when it is shown."""
    return [address for found in LOADED.finditer(text) for address in found.groups() if address]


def on_page_content(html: str, **_: Any) -> str:
    """Drop the roles of reStructuredText that docstrings have before names."""
    return ROLE.sub("", html)


def on_post_build(config: Any) -> None:
    """Check every page and style sheet that was written; raises PluginError."""
    from mkdocs.exceptions import PluginError  # tests import this file where mkdocs is not installed

    found = [
        f"{path.relative_to(config.site_dir)} loads {address}"
        for path in sorted(Path(config.site_dir).rglob("*"))
        if path.suffix in (".html", ".css")
        for address in loaded_from_elsewhere(path.read_text("utf-8"))
    ]
    if found:
        raise PluginError("\n".join(found))

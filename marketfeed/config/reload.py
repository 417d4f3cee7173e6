"""Keys of a configuration that may change while the engine runs, and those that require a restart."""

from __future__ import annotations

from typing import Final

from marketfeed.config.schema import AuthConfig, Config

LIVE: Final = frozenset(
    {
        "tiers",
        "limits",
        "feeds",
        "gateway.hosts",
        "gateway.allowed_origins",
        "gateway.trusted_proxies",
        "gateway.default_tier",
        "gateway.encoding",
        "admin.token_file",
        "alerts.escalate",
        *(f"auth.{key}" for key in AuthConfig.__struct_fields__ if key not in ("mode", "anonymous", "path")),
    }
)


def changes(old: Config, new: Config) -> list[str]:
    """Return the paths that differ: keys, or the section's name if it is in LIVE, new or gone."""
    found: list[str] = []
    for section in Config.__struct_fields__:
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        if section in LIVE or type(before) is not type(after) or not hasattr(before, "__struct_fields__"):
            found.append(section)
            continue
        keys = type(before).__struct_fields__
        found += [f"{section}.{key}" for key in keys if getattr(before, key) != getattr(after, key)]
    return found


def fixed(paths: list[str]) -> list[str]:
    """Return those of ``paths`` that require a restart."""
    return [path for path in paths if path not in LIVE]

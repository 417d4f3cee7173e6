"""``marketfeed keys``: add, list and revoke the keys of clients, for ``auth.mode = "keys"``."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketfeed.cli.alerts_place import JsonOption
from marketfeed.cli.claims import (
    ChannelsOption,
    ConsumersOption,
    MaxSessionsOption,
    MaxSymbolsOption,
    PublishOption,
    SymbolsOption,
    TenantOption,
    TierOption,
    given_claims,
    tell,
    warn,
    warn_of_claims,
)
from marketfeed.cli.options import ConfigOption, SetOption, fail, load_config
from marketfeed.config.schema import DEFAULT_PATH
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from marketfeed.access.material import KeyEntry
    from marketfeed.config.schema import Config

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed keys add --sub ann --tier premium --symbols 'BTC*,AAPL' --comment 'desk 3'\n\n"
    "marketfeed keys list\n\n"
    "marketfeed keys revoke 5f1e0c9a7b21"
)
ADD_EXAMPLES: Final = (
    "The key is printed once, alone on stdout; the file has only a hash of it.\n\nExamples:\n\n"
    "marketfeed keys add --sub ann --tier premium --symbols 'BTC*,AAPL'\n\n"
    "marketfeed keys add --sub risk --symbols '*' --channels alerts --consumers 'risk-*' --publish '*'\n\n"
    "export MARKETFEED_TOKEN=$(marketfeed keys add --sub bot --symbols '*' --keys-file keys.json)\n\n"
    "marketfeed watch 'BTC*'"
)
LIST_EXAMPLES: Final = "Examples:\n\nmarketfeed keys list\n\nmarketfeed keys list --json | jq -r .claims.sub"
REVOKE_EXAMPLES: Final = (
    "Examples:\n\nmarketfeed keys revoke 5f1e0c9a7b21\n\nmarketfeed keys revoke --sub ann\n\n"
    "To end sessions before the engine has read the file again: marketfeed revoke"
)
NAMES: Final = ("id", "sub", "tenant", "tier", "symbols", "channels", "created", "comment")
RELOAD: Final = "a running engine reads the file after SIGHUP: kill -HUP PID, or systemctl reload marketfeed"
MOST_COMMENT: Final = 1000  # characters
_ID: Final = re.compile(r"(?:mfk_)?([0-9a-f]{12})(?:_[A-Za-z0-9_-]{43})?")

KeysFileOption = Annotated[
    Path | None,
    typer.Option("--keys-file", metavar="FILE", help="Default: auth.keys_file of the configuration."),
]

app = typer.Typer(
    help='Add, list and revoke the keys of clients, for auth.mode = "keys".', no_args_is_help=True
)


@app.command(epilog=ADD_EXAMPLES)
def add(
    context: typer.Context,
    sub: Annotated[str, typer.Option(metavar="NAME", help="Who will use it: a person or a program.")],
    tenant: TenantOption = None,
    tier: TierOption = None,
    symbols: SymbolsOption = None,
    channels: ChannelsOption = None,
    consumers: ConsumersOption = None,
    publish: PublishOption = None,
    max_sessions: MaxSessionsOption = None,
    max_symbols: MaxSymbolsOption = None,
    comment: Annotated[str, typer.Option(metavar="TEXT", help="For your own records.")] = "",
    keys_file: KeysFileOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Add a key, and print it."""
    from marketfeed.access.keys_file import add_key
    from marketfeed.access.material import KeyEntry
    from marketfeed.access.secrets import new_key

    claims = given_claims(context.params)
    if len(comment) > MOST_COMMENT or not comment.isprintable():
        raise fail(f"--comment: must be printable text of at most {MOST_COMMENT} characters")
    path, name, settings = _place(keys_file, config, set_)
    key_id, hashed, key = new_key()
    try:
        add_key(path, KeyEntry(key_id, hashed, time.time(), claims, comment), name)
    except ConfigError as error:
        raise fail(str(error)) from None
    print(key, flush=True)
    tell(f"added key {key_id} of {sub} to {path}; it is not shown again")
    if settings is None:
        return
    warn_of_claims(claims, settings)
    if settings.auth.mode == "keys":
        tell(RELOAD)
    else:
        warn(f'auth.mode is "{settings.auth.mode}": set it to "keys" for an engine that takes keys')


@app.command("list", epilog=LIST_EXAMPLES)
def list_keys(
    json: JsonOption = False,
    keys_file: KeysFileOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List the keys: ids, claims and comments, no secrets."""
    from marketfeed.access.keys_file import load_keys
    from marketfeed.cli import alerts_output as output

    path, name, _ = _place(keys_file, config, set_)
    try:
        entries = load_keys(path, name)
    except ConfigError as error:
        raise fail(str(error)) from None
    if json:
        for entry in entries:
            output.print_json(_fields(entry), sys.stdout)
    elif entries:
        output.print_table(NAMES, [_row(entry) for entry in entries], sys.stdout)
    else:
        output.print_said("no keys", sys.stdout)


@app.command(epilog=REVOKE_EXAMPLES)
def revoke(
    key_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of the key, as marketfeed keys list shows it.")
    ] = None,
    sub: Annotated[
        str | None, typer.Option(metavar="NAME", help="All keys of this holder, instead of one.")
    ] = None,
    keys_file: KeysFileOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Remove a key, or all keys of a holder."""
    from marketfeed.access.keys_file import remove_keys
    from marketfeed.cli import alerts_output as output

    if (key_id is None) == (sub is None):
        raise fail("ID, --sub: one of them is required, and not both")
    found = None if key_id is None else _ID.fullmatch(key_id)
    if key_id is not None and found is None:  # it may be a secret, so it is not repeated
        raise fail("ID: must be the 12 hexadecimal digits that marketfeed keys list shows")
    wanted = found[1] if found is not None else None
    path, name, settings = _place(keys_file, config, set_)
    try:
        removed = remove_keys(
            path, lambda entry: entry.id == wanted if sub is None else entry.claims["sub"] == sub, name
        )
    except ConfigError as error:
        raise fail(str(error)) from None
    if not removed:
        raise fail(f"{path} has no key {f'with the id {wanted}' if sub is None else f'of {sub}'}")
    for entry in removed:
        output.print_said(f"revoked {entry.id} of {entry.claims['sub']}", sys.stdout)
    if settings is None or settings.auth.mode == "keys":
        tell(RELOAD)


def _place(
    keys_file: Path | None, config: Path | None, set_: list[str] | None
) -> tuple[Path, str, Config | None]:
    """Return the file, how errors name it, and the configuration, if there is one."""
    found: Config | None = None
    if keys_file is None or config is not None or set_ or DEFAULT_PATH.is_file():
        found = load_config(config, set_).config
    if keys_file is not None:
        return keys_file, "--keys-file", found
    if found is None or found.auth.keys_file is None:
        raise fail("auth.keys_file: missing; name the file there, or with --keys-file")
    return Path(found.auth.keys_file), "auth.keys_file", found


def _fields(entry: KeyEntry) -> dict[str, Any]:
    return {
        "id": entry.id, "created_s": entry.created_s, "claims": entry.claims, "comment": entry.comment,
    }  # fmt: skip


def _row(entry: KeyEntry) -> tuple[str, ...]:
    claims = entry.claims
    return (
        entry.id,
        claims["sub"],
        claims.get("tenant") or "-",
        claims.get("tier") or "-",
        " ".join(claims.get("symbols") or ()) or "-",
        " ".join(claims.get("channels") or ()) or "-",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.created_s)),
        entry.comment,
    )

"""The command line of ``marketfeed revoke``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from marketfeed.cli.alerts_place import AdminTokenOption, JsonOption
from marketfeed.cli.options import CaOption, ConfigOption, SetOption, fail

if TYPE_CHECKING:
    from marketfeed.cli.revoke_place import RevokePlace

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed revoke --sub ann --comment 'left the firm'\n\n"
    "marketfeed revoke --tenant desk-3\n\n"
    "marketfeed revoke --token 5f1e0c9a7b21\n\n"
    "marketfeed revoke --list\n\n"
    "marketfeed revoke --sub ann --undo"
)
NAMES: Final = ("kind", "value", "revoked", "until", "comment")

SubOption = Annotated[str | None, typer.Option(metavar="NAME", help="Whatever was issued to this `sub`.")]
TenantOption = Annotated[str | None, typer.Option(metavar="NAME", help="Whatever was issued to this tenant.")]
TokenIdOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="ID",
        help="One token by its `jti`, one key by its id; or all of it, to take its id.",
    ),
]
AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="URL of the engine's admin port, http://HOST:PORT. Default: as the configuration says, if an "
        "engine runs with its auth.path; else that file is changed, for the next start.",
    ),
]


def revoke(
    sub: SubOption = None,
    tenant: TenantOption = None,
    token: TokenIdOption = None,
    comment: Annotated[str, typer.Option(help="Why; kept with the revocation.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take this revocation back.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the revocations in force.")] = False,
    json: JsonOption = False,
    url: AdminUrl = None,
    ca: CaOption = None,
    admin_token_file: AdminTokenOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Revoke keys and tokens before they expire. Their sessions end within a second, with 4502.

    What is issued to the same `sub` or tenant from the next second on is good again.

    Exits with status 2 if nothing was revoked, or there was nothing to take back.
    """
    from marketfeed.cli.revoke_place import RevokePlace

    given = {"sub": sub, "tenant": tenant, "token": token}
    subject = {name: value for name, value in given.items() if value is not None}
    if list_ and (subject or undo or comment):
        raise fail("--list: takes no --sub, --tenant, --token, --comment or --undo")
    if not list_ and len(subject) != 1:
        raise fail("one of --sub, --tenant and --token is required, and no two; or --list")
    if undo and comment:
        raise fail("--undo: takes no --comment")
    subject = _checked(subject)
    place = RevokePlace(config, set_, url, ca, admin_token_file)
    if list_:
        _list(place, as_json=json)
    elif undo:
        _undo(place, subject, as_json=json)
    else:
        _revoke(place, subject, comment, as_json=json)


def _checked(subject: dict[str, str]) -> dict[str, str]:
    """Return ``subject`` with the id of a key or token in place of all of it; ends the command if invalid."""
    from marketfeed.access.token_ids import id_of
    from marketfeed.errors import AccessError

    if "token" not in subject:
        return subject
    try:
        return {"token": id_of(subject["token"])}
    except AccessError as error:
        raise fail(f"--token: {error}") from None


def _revoke(place: RevokePlace, subject: dict[str, str], comment: str, *, as_json: bool) -> None:
    from marketfeed.admin.access_operations import REVOKE
    from marketfeed.api.access import RevokedAnswer
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call
    from marketfeed.cli.alerts_place import struct_of
    from marketfeed.core.counts import amount

    call = Call("POST", REVOKE, {**subject, "comment": comment}, admin=True)
    answer, from_engine = place.answer(call)
    found = struct_of(answer, RevokedAnswer)
    if as_json:
        output.print_json(found, sys.stdout)
        return
    ((kind, value),) = subject.items()
    effect = f"{amount(found.sessions, 'sessions')} ended"
    if not from_engine:
        effect = "no engine runs: in force from its next start"
    until = "for ever" if found.until is None else f"until {_moment(found.until)}"
    output.print_said(f"revoked {kind} {value} {until}; {effect}", sys.stdout)


def _undo(place: RevokePlace, subject: dict[str, str], *, as_json: bool) -> None:
    from marketfeed.admin.access_operations import REVOKE
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call

    place.answer(Call("DELETE", REVOKE, query=subject, admin=True))
    ((kind, value),) = subject.items()
    if as_json:
        output.print_json({"undone": subject}, sys.stdout)
    else:
        output.print_said(f"revoked no longer: {kind} {value}", sys.stdout)


def _list(place: RevokePlace, *, as_json: bool) -> None:
    from marketfeed.admin.access_operations import REVOCATIONS
    from marketfeed.api.access import RevocationList
    from marketfeed.cli import alerts_output as output
    from marketfeed.cli.alerts_http import Call
    from marketfeed.cli.alerts_place import struct_of

    answer, _ = place.answer(Call("GET", REVOCATIONS, admin=True))
    rows = struct_of(answer, RevocationList).revocations
    if as_json:
        for row in rows:
            output.print_json(row, sys.stdout)
    elif not rows:
        output.print_said("no revocations", sys.stdout)
    else:
        cells = [
            (
                row.kind,
                row.value,
                _moment(row.at),
                "-" if row.until is None else _moment(row.until),
                row.comment,
            )
            for row in rows
        ]
        output.print_table(NAMES, cells, sys.stdout)


def _moment(at_us: int) -> str:
    from marketfeed.cli import alerts_output as output
    from marketfeed.core.units import US

    return output.moment(at_us * US)

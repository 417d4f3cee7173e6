"""The command line of ``marketfeed alerts``: one module per group of commands."""

from __future__ import annotations

from typing import Final

import typer

from marketfeed.cli import (
    alerts_audit,
    alerts_change,
    alerts_consumers,
    alerts_lists,
    alerts_publish,
    alerts_silences,
    alerts_tail,
    alerts_test,
)

EXAMPLES: Final = (
    "Examples:\n\n"
    "marketfeed alerts list --severity critical\n\n"
    "marketfeed alerts tail\n\n"
    "marketfeed alerts resolve 01JDQ3M4R5XW8K2B7N6T9V0YHC --by ann\n\n"
    "marketfeed alerts consumers"
)

app = typer.Typer(help="Read and change the alert log, whether an engine runs or not.", no_args_is_help=True)

app.command("list", epilog=alerts_lists.LIST_EXAMPLES)(alerts_lists.list_alerts)
app.command("show", epilog=alerts_lists.SHOW_EXAMPLES)(alerts_lists.show_alert)
app.command("tail", epilog=alerts_tail.EXAMPLES)(alerts_tail.tail)
app.command("test", epilog=alerts_test.EXAMPLES)(alerts_test.run_over_recording)
app.command("ack", epilog=alerts_change.ACK_EXAMPLES)(alerts_change.ack)
app.command("resolve", epilog=alerts_change.RESOLVE_EXAMPLES)(alerts_change.resolve)
app.command("dead", epilog=alerts_lists.DEAD_EXAMPLES)(alerts_lists.dead)
app.command("requeue", epilog=alerts_change.REQUEUE_EXAMPLES)(alerts_change.requeue)
app.command("audit", epilog=alerts_audit.EXAMPLES)(alerts_audit.audit)
app.command("publish", epilog=alerts_publish.EXAMPLES)(alerts_publish.publish)
app.command("silence", epilog=alerts_silences.EXAMPLES)(alerts_silences.silence)
app.command("silences", epilog=alerts_silences.LIST_EXAMPLES)(alerts_silences.silences)
app.add_typer(alerts_consumers.app, name="consumers", epilog=alerts_consumers.EXAMPLES)

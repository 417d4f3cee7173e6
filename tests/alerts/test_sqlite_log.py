"""The SQLite alert log: the checks of every log, and what is particular to this one."""

from __future__ import annotations

from marketfeed.alerts.sqlite_log import open_log
from marketfeed.testing import check_alert_log


async def test_it_passes_the_checks_of_every_alert_log(tmp_path):
    await check_alert_log(lambda name: open_log(tmp_path / "new" / f"{name}.db"))

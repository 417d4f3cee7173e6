"""Notices that are published again: what was kept in their place, and whether that is acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.alerts.service import NoticeConflictError

if TYPE_CHECKING:
    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.log import AlertLog, Appended


async def check_addressee(log: AlertLog, notice: Alert, appended: Appended) -> None:
    """Raise NoticeConflictError if what was kept in place of ``notice`` is to another consumer."""
    first = await log.find(appended.id)
    if first is not None and first.alert.to != notice.to:
        raise NoticeConflictError(
            f"the key {notice.key[:40]!r} is that of your notice {appended.id} to"
            f" {first.alert.to or 'everybody'}, and this one is to {notice.to or 'everybody'}:"
            " use another key"
        )


async def is_acknowledged(log: AlertLog, name: str, position: int) -> bool:
    """Return whether consumer ``name`` has acknowledged the entry at ``position``."""
    progress = await log.progress(name)
    if progress is None or any(entry.position == position for entry in progress.requeued):
        return False
    settled = position <= progress.floor or position in progress.settled
    return settled and position not in {letter.entry.position for letter in await log.dead_letters(name)}

# A risk consumer: every alert once in risk.db, whatever ends or fails in between.
import asyncio
import sqlite3

from marketfeed.client import connect


async def main():
    db = sqlite3.connect("risk.db")
    db.execute("CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, msg TEXT)")
    async with connect("http://127.0.0.1:8765", wait=True) as feed:  # wait: the engine may start later
        async for alert in feed.alerts(consumer="risk-1"):
            with db:  # a transaction, durable at its end
                db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?)", (alert.id, alert.msg))
            # The client acknowledges the alert when it comes back for the next one.


asyncio.run(main())

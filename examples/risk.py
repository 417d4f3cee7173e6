# A risk service: every alert once in risk.db, whatever ends or fails in between.
import sqlite3
import time

import httpx

engine = httpx.Client(base_url="http://127.0.0.1:8765", timeout=60)
db = sqlite3.connect("risk.db")
db.execute("CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, msg TEXT)")
while True:
    try:
        answer = engine.get("/v1/alerts", params={"consumer": "risk-1"}).raise_for_status()
        alerts = answer.json()["alerts"] if answer.status_code == 200 else []  # 204: nothing is due
        with db:  # one transaction for all of them, durable at its end
            db.executemany("INSERT OR IGNORE INTO alerts VALUES (:id, :msg)", alerts)
        body = {"consumer": "risk-1", "alerts": [alert["id"] for alert in alerts]}
        if alerts:
            engine.post("/v1/alerts/ack", json=body).raise_for_status()
    except httpx.HTTPError:
        time.sleep(1)

# A risk service: every alert once in risk.db, whatever ends or fails in between.
import sqlite3
import time

import httpx

engine = httpx.Client(base_url="http://127.0.0.1:8765", timeout=60)
db = sqlite3.connect("risk.db", isolation_level=None)  # each statement is durable when it returns
db.execute("CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, msg TEXT)")
while True:
    try:
        answer = engine.get("/v1/alerts", params={"consumer": "risk-1"}).raise_for_status()
        for alert in answer.json()["alerts"] if answer.status_code == 200 else []:  # 204: nothing is due
            db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?)", (alert["id"], alert["msg"]))
            body = {"consumer": "risk-1", "alerts": [alert["id"]]}
            engine.post("/v1/alerts/ack", json=body).raise_for_status()
    except httpx.HTTPError:
        time.sleep(1)

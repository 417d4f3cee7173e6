"""Notices: one per publisher and key, the addressee of a repeated one, and notices of earlier releases."""

from __future__ import annotations

import contextlib

import apsw
import msgspec
import pytest

from marketfeed.alerts.alert import alert_id
from marketfeed.alerts.service import NoticeConflictError
from marketfeed.alerts.sqlite_log import open_log
from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.alerts.sqlite_writes import Changes
from marketfeed.testing_alert_log import NOW_NS, example
from tests.support.dispatching import dispatching, notice


@pytest.mark.parametrize(("first", "second"), [("risk", "desk"), ("risk", None), (None, "risk")])
@pytest.mark.parametrize("same_id", [False, True])
async def test_a_key_that_comes_again_with_another_addressee_is_refused(tmp_path, first, second, same_id):
    async with dispatching(tmp_path) as dispatch:
        kept = await dispatch.publish(notice("k", to=first, publisher="ann"))
        again = notice("k", to=second, publisher="ann")
        if not same_id:
            again = msgspec.structs.replace(again, id=alert_id("notice", "other", "notice", 0, 7))
        with pytest.raises(NoticeConflictError) as refused:
            await dispatch.publish(again, 30.0 if second else None)  # does not wait
        assert str(refused.value) == (
            f"the key 'k' is that of your notice {kept.id} to {first or 'everybody'}, "
            f"and this one is to {second or 'everybody'}: use another key"
        )
        assert await dispatch.head() == 1
        assert (await dispatch.publish(notice("k", to=second, publisher="bob"))).new


@pytest.mark.parametrize(
    "index", ["", "CREATE INDEX notices ON alerts (body ->> '$.key') WHERE body ->> '$.state' = 'notice'"]
)
async def test_notices_in_a_log_of_an_older_release_have_no_publisher(tmp_path, index):
    path = tmp_path / "alerts.db"
    first, again, others = (
        example(n, state="notice", key="k", publisher=publisher)
        for n, publisher in enumerate(["", "", "ann"])
    )
    async with open_log(path) as log:
        await log.append([first], NOW_NS)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"DROP INDEX published; {index}")
        connection.execute("UPDATE alerts SET body = json_remove(body, '$.publisher')")
    reader = SqliteReader(path)
    assert [entry.alert for entry in reader.read(0, 9)] == [first]
    for new in (True, False):
        async with open_log(path) as log:
            found = await log.append([again, others], NOW_NS)
            assert [(one.position, one.new) for one in found] == [(1, False), (2, new)]
    reader.close()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")
        ]
        assert {"published", "notices"} & {*names} == {"published"}


async def test_a_notice_is_looked_for_by_the_index_over_publisher_and_key(tmp_path):
    async with open_log(tmp_path / "alerts.db") as log:
        await log.append([example(1, state="notice")], NOW_NS)
    asked: list[str] = []

    def trace(cursor, sql, bindings):
        asked.append(sql)
        return True

    with contextlib.closing(apsw.Connection(str(tmp_path / "alerts.db"))) as connection:
        connection.exec_trace = trace
        Changes(connection).append([example(2, state="notice")], {}, NOW_NS)
        (sql,) = [one for one in asked if "'notice'" in one]
        connection.exec_trace = None
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ("k", "p")))
        assert "USING INDEX published (<expr>=? AND <expr>=?)" in plan

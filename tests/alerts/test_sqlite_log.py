"""The SQLite alert log: the checks of every log, and what is particular to this one."""

from __future__ import annotations

import contextlib
import os
from contextlib import asynccontextmanager

import apsw
import msgspec
import pytest
import trio

from marketfeed.alerts import sqlite_writer
from marketfeed.alerts.escalation.message import End
from marketfeed.alerts.escalation.pending import Pending
from marketfeed.alerts.log import Consumer, Former
from marketfeed.alerts.sqlite_file import VERSION
from marketfeed.alerts.sqlite_log import SqliteLog, open_log
from marketfeed.alerts.sqlite_reads import SqliteReader
from marketfeed.errors import AlertLogError
from marketfeed.testing import check_alert_log
from marketfeed.testing_alert_log import NOW_NS, example


async def test_it_passes_the_checks_of_every_alert_log(tmp_path):
    await check_alert_log(lambda name: open_log(tmp_path / "new" / f"{name}.db"))


class Forgetful(SqliteLog):
    """Answers acknowledgements before it keeps them, which it never does."""

    async def acknowledge(self, name, ids, now_ns):
        answer = await super().acknowledge(name, ids, now_ns)
        await self._change(lambda changes: changes._do("DELETE FROM standings WHERE kind = 1"))
        return answer


class Doubling(SqliteLog):
    """Keeps an id as often as it comes."""

    async def append(self, alerts, now_ns, marks=None):
        appended = await super().append(alerts, now_ns, marks)
        return [type(one)(one.id, one.position, True) for one in appended]


class Shared(SqliteLog):
    """Keeps a key of notices once over all publishers."""

    async def append(self, alerts, now_ns, marks=None):
        held = {entry.alert.key: entry for entry in await self.read(0, 1000) if entry.alert.state == "notice"}
        known = [held[alert.key].alert if alert.key in held else alert for alert in alerts]
        return await super().append(known, now_ns, marks)


class Deaf(SqliteLog):
    """Has no floors."""

    def advance(self, name, floor):
        pass


class Unbounded(SqliteLog):
    """Delivers alerts about all symbols."""

    async def use_consumer(self, name, now_ns, start="all", patterns=("*",), symbols=("*",)):
        consumer = await super().use_consumer(name, now_ns, start, patterns)
        return msgspec.structs.replace(consumer, symbols=tuple(symbols))


class Fickle(SqliteLog):
    """Lets the newest patterns decide about everything."""

    async def use_consumer(self, name, now_ns, start="all", patterns=("*",), symbols=("*",)):
        consumer = await super().use_consumer(name, now_ns, start, patterns, symbols)
        await self._change(lambda changes: changes._do("UPDATE consumers SET former = '[]'"))
        return msgspec.structs.replace(consumer, former=())


class Generous(SqliteLog):
    """Requeues dead letters also if they are about symbols that the consumer may not see any more."""

    async def requeue(self, name, ids, now_ns, by=""):
        (consumer,) = [one for one in await self.consumers() if one.name == name]
        await super().use_consumer(name, now_ns)
        requeued = await super().requeue(name, ids, now_ns, by)
        await super().use_consumer(name, now_ns, consumer.start, consumer.patterns, consumer.symbols)
        return requeued


@pytest.mark.parametrize(
    ("broken", "check"),
    [(Forgetful, 7), (Doubling, 1), (Shared, 1), (Deaf, 8), (Unbounded, 6), (Generous, 14), (Fickle, 15)],
)
async def test_a_broken_log_fails_the_checks(tmp_path, broken, check):
    @asynccontextmanager
    async def opened(name):
        log = broken(tmp_path / f"{name}.db", trio.lowlevel.current_trio_token())
        try:
            yield log
        finally:
            log.close()

    # Trio's threads are not used for opening and closing here: blocking a test is no harm.
    with pytest.raises(AssertionError, match=f"^check {check}, "):
        await check_alert_log(opened)


async def test_waiting_callers_share_commits(tmp_path):
    done = []

    async def publish(log, number):
        (appended,) = await log.append([example(number)], NOW_NS)
        done.append(appended.position)

    async with open_log(tmp_path / "alerts.db") as log:
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(publish, log, number)
        statistics = log.statistics()
        assert sorted(done) == list(range(1, 501))
        assert statistics.commits < 250
        assert sum(statistics.commit_buckets) == statistics.commits
        assert (statistics.failures, statistics.problem) == (0, None)


async def test_an_invalid_change_fails_alone(tmp_path):
    failed = []

    async def invalid(log):
        try:
            await log.acknowledge("a", ["\ud800"], NOW_NS)  # not UTF-8
        except AlertLogError as error:
            failed.append(str(error))

    async with open_log(tmp_path / "alerts.db") as log:
        await log.use_consumer("a", NOW_NS)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(log.append, [example(number)], NOW_NS)
                if number == 10:
                    nursery.start_soon(invalid, log)
        assert await log.head() == 20
    assert len(failed) == 1
    assert failed[0].startswith("the alert log refused a change")


async def test_what_may_lag_is_kept_without_another_change(tmp_path):
    path = tmp_path / "alerts.db"
    async with open_log(path) as log:
        await log.use_consumer("a", NOW_NS)
        await log.append([example(1)], NOW_NS)
        log.record_attempts("a", {1: 3})
    with trio.fail_after(60):
        async with open_log(path) as log:
            progress = await log.progress("a")
    assert progress is not None
    assert progress.tries == {1: 3}


async def test_others_read_while_the_engine_writes_and_afterwards(tmp_path):
    path = tmp_path / "alerts.db"
    async with open_log(path) as log:
        await log.append([example(1), example(2)], NOW_NS)
        reader = SqliteReader(path)
        await log.append([example(3)], NOW_NS)
        assert [entry.position for entry in reader.read(0, 9)] == [1, 2, 3]
        assert [entry.position for entry in reader.newest(2)] == [2, 3]
        reader.close()
    reader = SqliteReader(path)
    assert reader.head() == 3
    reader.close()


async def refusal(path):
    with pytest.raises(AlertLogError) as caught:
        async with open_log(path):
            pass
    text = str(caught.value)
    assert "\n" not in text
    return text


async def test_a_second_engine_is_refused_with_the_number_of_the_first(tmp_path):
    path = tmp_path / "alerts.db"
    async with open_log(path):
        text = await refusal(path)
    assert text == f"{path} is in use by process {os.getpid()}: stop it, or set alerts.path to another file"
    async with open_log(path):
        pass


async def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.db"
    with apsw.Connection(str(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    assert (
        await refusal(path) == f"{path} is the database of another program: set alerts.path to another file"
    )
    assert path.read_bytes() == before
    path.write_text("not a database, but a text that is longer than the header of one" * 99)
    assert "is no alert log, or its beginning is damaged: restore it" in await refusal(path)


async def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "alerts.db"
    async with open_log(path):
        pass
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", VERSION + 1)
    connection.close()
    assert f"is of a newer release (schema {VERSION + 1}, this one reads up to {VERSION})" in await refusal(
        path
    )
    with pytest.raises(AlertLogError, match="newer release"):
        SqliteReader(path)


async def test_a_locked_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("marketfeed.alerts.sqlite_file.BUSY_MS", 0)
    path = tmp_path / "alerts.db"
    async with open_log(path):
        pass
    connection = apsw.Connection(str(path))
    connection.pragma("locking_mode", "exclusive")
    connection.execute("BEGIN EXCLUSIVE")
    assert await refusal(path) == f"{path} is locked by another program: close the program that has it open"
    connection.close()


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
async def test_a_damaged_file_is_refused(tmp_path, where):
    path = tmp_path / "alerts.db"
    async with open_log(path) as log:
        await log.append([example(number) for number in range(2000)], NOW_NS)
    content = bytearray(path.read_bytes())
    start = int(where * len(content)) // 4096 * 4096
    content[start : start + 4096] = bytes(range(256)) * 16
    path.write_bytes(content)
    text = await refusal(path)
    assert text.startswith(f"{path} is damaged (")
    assert text.endswith("restore it from a backup, or move it and alerts.db-wal away to start a new log")


async def test_a_damaged_index_is_found(tmp_path):
    path = tmp_path / "alerts.db"
    async with open_log(path) as log:
        await log.append([example(1)], NOW_NS)
    connection = apsw.Connection(str(path))
    connection.pragma("writable_schema", "on")
    connection.execute("DELETE FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'alerts'")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' UNIQUE', '') WHERE name = 'alerts'")
    connection.close()
    assert "is damaged (" in await refusal(path)


async def test_a_place_where_no_file_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be created: " in await refusal(tmp_path / "file" / "alerts.db")
    (tmp_path / "folder.db").mkdir()
    assert "folder.db is a folder: the alert log is a file; set alerts.path" in await refusal(
        tmp_path / "folder.db"
    )
    with pytest.raises(AlertLogError, match="there is no alert log"):
        SqliteReader(tmp_path / "none.db")
    (tmp_path / "empty.db").write_bytes(b"")
    with pytest.raises(AlertLogError, match="is empty"):
        SqliteReader(tmp_path / "empty.db")


async def test_escalations_are_kept_with_the_position_of_their_log(tmp_path):
    path = tmp_path / "alerts.db"
    first, second = (
        Pending(name="desk", alert=example(n), since_ns=NOW_NS, wait_ns=n, tries=n) for n in (1, 2)
    )
    async with open_log(path) as log:
        assert await log.escalations() == (None, [])
        await log.keep_escalations(7, {first.key: first, second.key: second})
    async with open_log(path) as log:
        position, kept = await log.escalations()
        assert (position, sorted(kept, key=lambda one: one.tries)) == (7, [first, second])
        later = msgspec.structs.replace(first, phase="ending", end=End(cause="cleared", at_ns=NOW_NS))
        await log.keep_escalations(9, {first.key: later, second.key: None})
        assert await log.escalations() == (9, [later])
        await log.keep_escalations(None, {first.key: None})
        assert await log.escalations() == (None, [])


async def test_a_log_of_an_older_release_gets_the_tables_of_escalations_when_it_is_written(tmp_path):
    path = tmp_path / "alerts.db"
    async with open_log(path) as log:
        await log.append([example(1)], NOW_NS)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("DROP TABLE escalations; DROP TABLE escalation_position")
    reader = SqliteReader(path)
    assert reader.escalations() == (None, [])
    assert reader.head() == 1
    reader.close()
    async with open_log(path) as log:
        await log.keep_escalations(1, {})
        assert await log.escalations() == (1, [])
        assert await log.head() == 1


@pytest.mark.parametrize("lacking", [("symbols", "former"), ("former",)])
async def test_a_log_of_an_older_release_gets_what_consumers_have_when_it_is_written(tmp_path, lacking):
    path = tmp_path / "alerts.db"
    async with open_log(path) as log:
        await log.append([example(1)], NOW_NS)
        await log.use_consumer("a", NOW_NS, "all", ["wide"])
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        for name in lacking:
            connection.execute(f"ALTER TABLE consumers DROP COLUMN {name}")
    expected = Consumer("a", "all", ("wide",), NOW_NS, 0)
    reader = SqliteReader(path)
    assert reader.consumers() == [expected]
    async with open_log(path) as log:
        assert await log.consumers() == [expected]
        assert reader.consumers() == [expected]  # it has read the older schema before
        changed = await log.use_consumer("a", NOW_NS, symbols=["AAPL"])
        assert (changed.symbols, changed.former) == (("AAPL",), (Former(1, ("wide",)),))
    async with open_log(path) as log:
        assert [one.symbols for one in await log.consumers()] == [("AAPL",)]
    reader.close()


async def test_a_closed_log_says_so(tmp_path):
    async with open_log(tmp_path / "alerts.db") as log:
        pass
    with pytest.raises(AlertLogError, match="is closed"):
        await log.append([example(1)], NOW_NS)


async def test_data_that_json_cannot_express_is_refused_before_the_log(tmp_path):
    async with open_log(tmp_path / "alerts.db") as log:
        with pytest.raises(TypeError):
            await log.append([example(1, data={"x": object()})], NOW_NS)
        assert log.statistics().commits == 0


def test_floors_and_attempts_that_wait_are_kept_once_each():
    notes = sqlite_writer.Notes({"a": {1: 1, 2: 1}}, {"a": 5})
    notes.update(sqlite_writer.Notes({"a": {2: 2}, "b": {1: 1}}, {"a": 3, "b": 2}))
    assert notes.attempts == {"a": {1: 1, 2: 2}, "b": {1: 1}}
    assert notes.floors == {"a": 5, "b": 2}

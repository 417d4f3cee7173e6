"""``[[alerts.escalate]]`` tables: what they allow, and all mistakes at once."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketfeed.alerts.escalation import registry
from marketfeed.alerts.escalation.alertmanager import Alertmanager
from marketfeed.alerts.escalation.pagerduty import PagerDuty
from marketfeed.alerts.escalation.pending import Plan
from marketfeed.alerts.escalation.registry import escalations
from marketfeed.alerts.escalation.webhook import Webhook
from marketfeed.errors import ConfigError

WORD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENVIRON = {"HOOK": WORD, "PD": "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY12"}
HOOK = {"kind": "webhook", "url": "https://hooks.example.com/T0KEN", "secret_env": "HOOK"}
PAGER = {"kind": "pagerduty", "routing_key_env": "PD"}
MANAGER = {"kind": "alertmanager", "urls": ["http://am.example:9093"]}


def lines(*tables: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as found:
        escalations(tables, Path("/"), ENVIRON)
    for line in found.value.mistakes:
        assert not any(word in line for word in (WORD, ENVIRON["PD"], "T0KEN"))
        assert "\n" not in line
    return list(found.value.mistakes)


def test_tables_become_senders_with_plans():
    hook = {**HOOK, "name": "ops", "severity": "warning", "after_s": 60}
    built = escalations([hook, PAGER, {**MANAGER, "resend_s": 30}], Path("/"), ENVIRON)
    assert [type(one.sender) for one in built] == [Webhook, PagerDuty, Alertmanager]
    assert [one.plan for one in built] == [
        Plan("ops", "warning", 60.0),
        Plan("pagerduty", "critical", 300.0),
        Plan("alertmanager", "critical", 300.0, 30.0, 256),
    ]
    assert WORD not in repr(built)
    assert WORD not in repr([vars(one.sender) for one in built])


def test_secret_files_are_relative_to_the_configuration(tmp_path):
    (tmp_path / "hook").write_text(WORD)
    table = {"kind": "webhook", "url": "https://hooks.example.com", "secret_file": "hook"}
    assert len(escalations([table], tmp_path, {})) == 1


def test_all_mistakes_of_all_tables_are_found():
    found = lines(
        {**HOOK, "afer_s": 5, "severity": "warn", "secret_env": "NONE"},
        {**MANAGER, "urls": "http://u:T0KEN@am"},
        {"kind": "webhok"},
        {"kind": "pagerduty", "name": "webhook", "routing_key": "x", "url": "http://10.0.0.1"},
        {"name": "nothing"},
    )
    common = "allowed: name, kind, severity, after_s"
    none_of = "one of alertmanager, pagerduty, webhook"
    assert found == [
        'alerts.escalate.0.severity: must be one of "critical", "info", "warning", not the string "warn"; '
        "did you mean warning?",
        f"alerts.escalate.0.afer_s: unknown key; did you mean after_s? {common}, url, secret_file, "
        "secret_env, previous_secret_file, previous_secret_env, allow_private, timeout_s",
        "alerts.escalate.0.secret_env: the environment variable NONE is not set, or is empty",
        "alerts.escalate.1.urls: must be a list of strings",
        f'alerts.escalate.2.kind: unknown kind "webhok"; did you mean webhook? {none_of}',
        f"alerts.escalate.3.routing_key: unknown key; did you mean routing_key_env? {common}, "
        "routing_key_file, routing_key_env, url, source, allow_private, timeout_s",
        "alerts.escalate.3.routing_key_file: missing; must be the path of a file, or routing_key_env must be "
        "a variable",
        "alerts.escalate.3.url: 10.0.0.1 is not a public address: that requires allow_private = true",
        'alerts.escalate.3.name: another escalation is named "webhook": alerts.escalate.0',
        f"alerts.escalate.4.kind: missing; {none_of}",
    ]


def test_a_mistake_is_told_once():
    found = lines({**HOOK, "secret_env": 5}, {**PAGER, "url": "", "name": "x" * 65})
    assert [line.partition(":")[0] for line in found] == [
        "alerts.escalate.0.secret_env",
        "alerts.escalate.1.name",
        "alerts.escalate.1.url",
    ]
    assert lines(*[HOOK] * 33) == ["alerts.escalate: at most 32, not 33"]


@pytest.mark.parametrize(
    "key", ["secret", "routing_key", "token", "secret_file", "previous_secret_file", "previous_secret_env"]
)
def test_a_secret_in_the_table_is_not_repeated(key):
    lines({**HOOK, key: WORD})
    lines({**HOOK, key: [WORD]})


def test_kinds_of_other_packages_are_found_by_entry_point(monkeypatch):
    points = [
        EntryPoint("mail", f"{__name__}:Mail", registry.GROUP),
        EntryPoint("broken", f"{__name__}:Broken", registry.GROUP),
        EntryPoint("none", "no_such_module:X", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    (built,) = escalations([{"kind": "mail", "to": "a"}], Path("/"), {})
    assert built.plan == Plan("mail", "critical", 300.0, 5.0, 2)
    assert lines(
        {"kind": "mail"}, {"kind": "broken"}, {"kind": "none"}, {"kind": "mail", "name": "b", "to": ""}
    ) == [
        "alerts.escalate.0.to: missing; must be a string",
        f"alerts.escalate.1.kind: broken ({__name__}:Broken) has a Config that is not a msgspec.Struct",
        "alerts.escalate.2.kind: none (no_such_module:X) cannot be loaded: "
        "ModuleNotFoundError: No module named 'no_such_module'",
        "alerts.escalate.3.to: must not be empty",
    ]


class MailConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: str


class Mail:
    Config = MailConfig
    batch = 2
    resend_s = 5.0

    def __init__(self, config: MailConfig, setup: Any) -> None:
        if not config.to:
            raise ConfigError("to: must not be empty")


class Broken:
    Config = str

"""Escalation: episodes that no person took on are sent to the outside.

    log ──► schedule ──► sender ──► endpoint ──► peer
    alerts  what is due  webhook,   breaker,
            when         …          addresses,
                                    one attempt

:mod:`schedule` is pure and knows no kind; a sender knows one kind and no delays; an endpoint makes one HTTP
attempt. :mod:`registry` turns ``[[alerts.escalate]]`` tables into senders.
"""

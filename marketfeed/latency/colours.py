"""Colours of tiers in plots and pages, the same in every panel and every report.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), without their yellow, which is too
light for lines, and three of Paul Tol's "muted". They can be distinguished with any colour blindness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KNOWN: Final = {"vip": "#0072B2", "premium": "#D55E00", "basic": "#009E73"}
OTHERS: Final = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#117733", "#999999")


def painted(counts: Mapping[tuple[str, ...], int], fields: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Return the colour of each row, by its key.

    ``counts`` is the number of values by key, ``fields`` are the fields of the keys. The colour depends on
    the row's tier; without the field "tier", on all fields but the hop. The ten names with the most values
    have different colours.
    """
    by_tier = "tier" in fields
    names = {key: key[fields.index("tier")] if by_tier else " ".join(key[1:]) for key in counts}
    totals: dict[str, int] = {}
    for key, name in names.items():
        totals[name] = totals.get(name, 0) + (0 if by_tier else counts[key])
    colours = {name: colour for name, colour in KNOWN.items() if by_tier}
    # Colours of absent known tiers come last, so that ten other tiers have different colours.
    unused = [colour for name, colour in KNOWN.items() if name not in totals]
    free = (*OTHERS, *unused) if by_tier else (*KNOWN.values(), *OTHERS)
    unknown = sorted(totals.keys() - colours.keys(), key=lambda name: (-totals[name], name))
    colours |= {name: free[number % len(free)] for number, name in enumerate(unknown)}
    return {key: colours[name] for key, name in names.items()}

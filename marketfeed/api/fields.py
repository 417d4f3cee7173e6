"""Types of fields that several messages share.

Their descriptions and limits appear in the published documents. Limits of fields in requests are JSON Schema
only: the gateway checks requests itself, with messages of its own.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from marketfeed.core.symbols import MAX_NAME_BYTES

MAX_ID: Final = 256  # characters of a request's id
MIN_INT: Final = -(2**63)  # integers that JSON encoders agree on
MAX_INT: Final = 2**64 - 1
# As is_symbol and is_pattern of core/symbols.py define them.
SYMBOL: Final = rf"[!#-)+\--\[\]-~]{{1,{MAX_NAME_BYTES}}}"
NAME: Final = rf"{SYMBOL}\*?|\*"

Symbol = Annotated[
    str,
    Meta(
        description=f"A symbol: 1 to {MAX_NAME_BYTES} printable ASCII characters"
        ' without space, comma, *, " and backslash.',
        extra_json_schema={"pattern": f"^{SYMBOL}$"},
    ),
]
Name = Annotated[
    str,
    Meta(
        description="A symbol, a prefix followed by *, or * for all symbols.",
        extra_json_schema={"pattern": f"^({NAME})$"},
    ),
]
Tier = Annotated[str, Meta(description="Name of a tier in the engine's configuration.")]
EncodingName = Annotated[str, Meta(extra_json_schema={"enum": ["json", "binary"]})]
Cursor = Annotated[
    str,
    Meta(description="An opaque cursor: send it back exactly as it came; its form may change."),
]
Epoch = Annotated[str, Meta(description="One lifetime of the engine's rings; a restart begins a new one.")]
RequestId = Annotated[
    Annotated[str, Meta(extra_json_schema={"maxLength": MAX_ID})]
    | Annotated[int, Meta(extra_json_schema={"minimum": MIN_INT, "maximum": MAX_INT})],
    Meta(description="The id of the request that this message answers."),
]
Micros = Annotated[int, Meta(ge=0, description="Microseconds since the Unix epoch.")]
Nanos = Annotated[int, Meta(ge=0, description="Nanoseconds.")]
Count = Annotated[int, Meta(ge=0)]
Price = Annotated[float, Meta(description="A price; it may be 0 or negative.")]
Size = Annotated[float, Meta(ge=0, description="A size.")]
TickNumber = Annotated[
    int,
    Meta(
        ge=0,
        lt=2**32,
        description="Number of the tick within its symbol and channel, from 1 without holes, modulo 2^32.",
    ),
]
Position = Annotated[
    int,
    Meta(ge=0, description="Number of the tick among all ticks of the epoch, from 1, both channels."),
]

"""The fan-out: encodes each tick once and sends it to the subscribed sessions. Pure, except the loop."""

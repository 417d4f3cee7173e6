"""TLS: the gateway's certificate, and an outbox that encrypts.

    shard, sessions, HTTP ──► TLS records in memory ──► outbox ──► kernel

trio.SSLStream can only send by waiting, so every frame would remove its session from its group. The ssl
module's memory BIOs encrypt without waiting: a session over TLS stays in its group, and its ledger counts
the bytes that the kernel accepted. This costs one encryption per member and frame.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.errors import CloseCode, ConfigError
from marketfeed.gateway.outbox import Outbox

if TYPE_CHECKING:
    import socket

    from marketfeed.gateway.outbox import Owner
    from marketfeed.gateway.pacer import Pacer

READ_BYTES: Final = 16384
DECRYPT_BYTES: Final = 1024  # decrypted at a time: at most 38 KeyUpdates of 29 µs each
OWN_BYTES: Final = 2048  # a second, of records that TLS itself sends: the answers to 75 KeyUpdates
RECORD_BYTES: Final = 8192  # encrypted at a time; a MemoryBIO never shrinks
HANDSHAKE: Final = b"\x16"  # the first byte of every TLS connection: RFC 8446, section 5.1

log = structlog.get_logger()


class TlsError(Exception):
    """The TLS handshake failed."""


class Certificate:
    """The certificate of new connections; existing connections keep theirs."""

    def __init__(self, cert: str, key: str) -> None:
        """Read the PEM files ``cert``, with its chain, and ``key``; raises ConfigError."""
        self._cert, self._key = cert, key
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again; after a ConfigError, the old certificate stays in use."""
        self.context = self._load()
        log.info("certificate read", cert=self._cert)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        found: list[str] = []
        for where, path in (("gateway.tls_cert", self._cert), ("gateway.tls_key", self._key)):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                found.append(f"{where}: {path}: {error.strerror}")
        if found:
            raise ConfigError(*found)
        try:
            # Refuses a key with a pass phrase; without a password, OpenSSL would prompt on the terminal.
            context.load_cert_chain(self._cert, self._key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            what = "PEM files of a certificate and of its key, without a pass phrase"
            raise ConfigError(f"gateway.tls_cert, gateway.tls_key: {what} ({reason})") from None
        return context


class TlsOutbox(Outbox):
    """An outbox that encrypts; before :meth:`handshake` it sends plain bytes.

    A peer can make TLS itself send records: answers to KeyUpdates (RFC 8446, section 4.6.3), and alerts
    that refuse a renegotiation (RFC 5246, section 7.2.2). While such records are unsent, nothing more is
    decrypted, and a peer that causes more than OWN_BYTES of them a second is disconnected with ABUSE.
    """

    __slots__ = ("_encrypted", "_incoming", "_outgoing", "_own_bytes", "_own_second", "_own_until", "_tls")

    def __init__(
        self, sock: socket.socket, nursery: trio.Nursery, owner: Owner, pacer: Pacer | None = None
    ) -> None:
        """Take ownership of ``sock``, as Outbox does."""
        super().__init__(sock, nursery, owner, pacer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._encrypted = b""  # received and not decrypted yet
        self._own_bytes = self._own_second = 0
        self._own_until = 0  # end of TLS's own last record, counted in all bytes of the tail

    async def handshake(self, context: ssl.SSLContext) -> None:
        """Perform the TLS handshake as the server; raises TlsError and the errors of reading."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError as error:
                self._flush()  # the alert with the reason
                await self.wait_send_all_might_not_block()
                raise TlsError(error.reason or str(error)) from None
            else:
                break
            if not self._encrypted:
                self._encrypted = await self._receive(READ_BYTES)
            if not self._feed():
                raise TlsError("the peer left in the middle of it")
        self._tls = tls
        self._flush()

    def offer(self, frame: bytes) -> bool:
        """Encrypt ``frame`` and hand it to the kernel; False if some of it has to wait. See Outbox.offer."""
        # What is encrypted has to be sent: the peer would miss a record.
        return not self._shut and super().offer(bytes(self._wire(frame)))

    def _wire(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        if self._tls is None:
            return data
        # RECORD_BYTES at a time: a MemoryBIO never releases memory.
        records: list[bytes] = []
        try:
            for start in range(0, len(data), RECORD_BYTES):
                self._tls.write(
                    data if len(data) <= RECORD_BYTES else memoryview(data)[start : start + RECORD_BYTES]
                )
                records.append(self._outgoing.read())
        except ssl.SSLError:
            self._break(CloseCode.ABNORMAL)
        return records[0] if len(records) == 1 else b"".join(records)

    def _flush(self) -> None:
        """Queue the records of TLS itself behind the unsent bytes."""
        if self._outgoing.pending and not self._lost and self._sock.fileno() >= 0:
            if not self._tail:
                self._nursery.start_soon(self._drain)
            self._append(self._outgoing.read())

    def _feed(self) -> bool:
        """Give TLS the next received bytes to decrypt; return False if there are none."""
        chunk, self._encrypted = self._encrypted[:DECRYPT_BYTES], self._encrypted[DECRYPT_BYTES:]
        self._incoming.write(chunk)
        return bool(chunk)

    async def _read(self, max_bytes: int) -> bytes:
        if self._tls is None:
            return await super()._read(max_bytes)
        while True:
            while self._passed < self._own_until:  # until the peer has read what TLS sent
                await self._wait_progress()
            self._check_open()
            data = self._decrypted(max_bytes)
            self._answer()
            if data is not None:
                return data
            if not self._encrypted:
                self._encrypted = await super()._read(READ_BYTES)
            elif self._pacer is not None:
                await self._pacer.turn()  # DECRYPT_BYTES of one-byte records cost a millisecond
            if not self._feed():
                return b""

    def _give_back(self, data: bytes) -> None:
        if self._tls is None:
            super()._give_back(data)
        else:
            self._encrypted = data

    def _decrypted(self, max_bytes: int) -> bytes | None:
        """Return the plain text of the records so far; None if there is none, b"" at the end."""
        assert self._tls is not None
        data = b""
        try:
            while len(data) < max_bytes:
                more = self._tls.read(max_bytes - len(data))
                if not more:
                    break
                data += more
        except ssl.SSLWantReadError:
            return data or None
        except ssl.SSLZeroReturnError:
            return data  # b"" if the end was read before
        except ssl.SSLError as error:
            if not data:
                self._break(CloseCode.ABNORMAL)
                raise trio.BrokenResourceError(str(error)) from error
        return data

    def _answer(self) -> None:
        """Queue the answers of TLS itself; raises BrokenResourceError if they exceed OWN_BYTES a second."""
        if not self._outgoing.pending:
            return
        second = int(trio.current_time())
        if second != self._own_second:
            self._own_second, self._own_bytes = second, 0
        self._own_bytes += self._outgoing.pending
        if self._own_bytes > OWN_BYTES:
            self.reset()
            self._break(CloseCode.ABUSE)
            raise trio.BrokenResourceError(f"more than {OWN_BYTES} bytes of TLS answers in a second")
        self._flush()
        self._own_until = self._taken

    async def send_eof(self) -> None:
        """Send close_notify and shut down the sending side."""
        self._say_end()
        self._flush()
        await super().send_eof()

    def close(self) -> None:
        """Close the socket; if some bytes are unsent, they are dropped and the connection is reset."""
        if not self._tail and not self._lost and self._sock.fileno() >= 0:
            self._say_end()
            try:
                self._sock.send(self._outgoing.read())
            except OSError:
                log.debug("closed without a word")
        super().close()

    def _say_end(self) -> None:
        if self._tls is not None:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                log.debug("the peer has not said that it ends")  # it need not

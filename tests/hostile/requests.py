"""Requests that two readers could read in two ways, and others that are no proper HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from ..support import BASIC

AUTHORIZED = b"host: localhost\r\nauthorization: " + BASIC.encode() + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + AUTHORIZED
BODY = b'{"type":"A00"}'  # 14 bytes
OTHER = b'{"type":"B00"}'
SECOND = POST + b"content-length: 14\r\n\r\n" + OTHER  # what a smuggler would have behind the first
CHUNKED = b"e\r\n" + BODY + b"\r\n0\r\n\r\n"


def post(*lines: bytes, body: bytes = BODY, start: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join([start, AUTHORIZED + b"\r\n".join(lines), b"", body])


# By name: what is sent, and the bodies that may be stored of it.
REQUESTS: Mapping[str, tuple[bytes, tuple[bytes, ...]]] = {
    "one that is right": (post(b"content-length: 14"), (BODY,)),
    "one in chunks": (post(b"transfer-encoding: chunked", body=CHUNKED), (BODY,)),
    "two in a row": (post(b"content-length: 14") + SECOND, (BODY, OTHER)),
    "a length and chunks": (post(b"content-length: 14", b"transfer-encoding: chunked", body=CHUNKED), (BODY,)),
    "a length that hides a request in chunks": (
        post(b"content-length: 5", b"transfer-encoding: chunked", body=b"0\r\n\r\n" + SECOND),
        (OTHER,),  # RFC 9112, 6.3: chunks override a length; what is behind them shows credentials of its own
    ),
    "chunks, then a length": (post(b"transfer-encoding: chunked", b"content-length: 5", body=CHUNKED), (BODY,)),
    "two lengths": (post(b"content-length: 14", b"content-length: 5") + SECOND, ()),
    "two equal lengths": (post(b"content-length: 14", b"content-length: 14"), (BODY,)),
    "a list of lengths": (post(b"content-length: 14, 14"), (BODY,)),
    "a length with a sign": (post(b"content-length: +14"), ()),
    "a length below nothing": (post(b"content-length: -1"), ()),
    "a length in hexadecimal": (post(b"content-length: 0xe"), ()),
    "a length beyond all": (post(b"content-length: " + b"9" * 40), ()),
    "a length with a space in it": (post(b"content-length: 1 4"), ()),
    "a length in other digits": (post("content-length: \u0661\u0664".encode()), ()),
    "chunks by another name": (post(b"transfer-encoding: xchunked", body=CHUNKED), ()),
    "chunks with junk behind": (post(b"transfer-encoding: chunked, x", body=CHUNKED), ()),
    "chunks in capitals": (post(b"transfer-encoding: CHUNKED", body=CHUNKED), (BODY,)),
    "chunks twice": (post(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=CHUNKED), (BODY,)),
    "packed in chunks": (post(b"transfer-encoding: gzip, chunked", body=CHUNKED), (BODY,)),
    "identity": (post(b"transfer-encoding: identity", b"content-length: 14"), (BODY,)),
    "chunks with a tab": (post(b"transfer-encoding:\tchunked", body=CHUNKED), (BODY,)),
    "chunks with a vertical tab": (post(b"transfer-encoding: \x0bchunked", body=CHUNKED), ()),
    "a space before the colon": (post(b"content-length : 14"), ()),
    "a space before the colon of chunks": (post(b"transfer-encoding : chunked", b"content-length: 14"), (BODY,)),
    "a folded header": (post(b"content-length: 14", b"x: a", b" b: c"), (BODY,)),
    "a folded length": (post(b"content-length:", b" 14"), (BODY,)),
    "a header that begins with a space": (post(b" content-length: 14"), ()),
    "a NUL in a header": (post(b"x: a\0b", b"content-length: 14"), (BODY,)),
    "a NUL in a name": (post(b"x\0: a", b"content-length: 14"), ()),
    "a bare CR in a header": (post(b"x: a\rcontent-length: 5", b"content-length: 14"), (BODY,)),
    "lines that end in LF alone": (post(b"content-length: 14").replace(b"\r\n", b"\n"), (BODY,)),
    "a header that ends in LF alone": (post(b"x: a\ncontent-length: 14"), (BODY,)),
    "a chunk that ends in LF alone": (post(b"transfer-encoding: chunked", body=b"e\n" + BODY + b"\n0\n\n"), (BODY,)),
    "a chunk size that overflows": (post(b"transfer-encoding: chunked", body=b"10000000000000000e\r\n" + BODY), ()),
    "a chunk size with a sign": (post(b"transfer-encoding: chunked", body=b"+e\r\n" + BODY + b"\r\n0\r\n\r\n"), ()),
    "a chunk size with 0x": (post(b"transfer-encoding: chunked", body=b"0xe\r\n" + BODY + b"\r\n0\r\n\r\n"), ()),
    "a chunk longer than it says": (post(b"transfer-encoding: chunked", body=b"5\r\n" + BODY + b"\r\n0\r\n\r\n"), ()),
    "a chunk with an extension": (
        post(b"transfer-encoding: chunked", body=b"e;a=b\r\n" + BODY + b"\r\n0\r\n\r\n"),
        (BODY,),
    ),
    "an extension without end": (
        post(b"transfer-encoding: chunked", body=b"e;" + b"a" * 200_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
        (BODY,),
    ),
    "extensions that hold a CR": (
        post(b"transfer-encoding: chunked", body=b"e;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n"),
        (BODY,),
    ),
    "trailers": (
        post(b"transfer-encoding: chunked", body=b"e\r\n" + BODY + b"\r\n0\r\ncontent-length: 5\r\nx: y\r\n\r\n"),
        (BODY,),
    ),
    "chunks that end early": (post(b"transfer-encoding: chunked", body=b"e\r\n" + BODY + b"\r\n"), ()),
    "a body that ends early": (post(b"content-length: 15"), ()),
    "an absolute target": (post(b"content-length: 14", start=b"POST http://another.example/x HTTP/1.1"), (BODY,)),
    "no target": (post(b"content-length: 14", start=b"POST  HTTP/1.1"), ()),
    "a target of a star": (post(b"content-length: 14", start=b"POST * HTTP/1.1"), (BODY,)),
    "a space in the target": (post(b"content-length: 14", start=b"POST /a b HTTP/1.1"), ()),
    "a fragment in the target": (post(b"content-length: 14", start=b"POST /a#b HTTP/1.1"), (BODY,)),
    "HTTP/1.0": (post(b"content-length: 14", start=b"POST / HTTP/1.0"), (BODY,)),
    "HTTP/1.0 in chunks": (post(b"transfer-encoding: chunked", body=CHUNKED, start=b"POST / HTTP/1.0"), (BODY,)),
    "HTTP/0.9": (b"POST /\r\n", ()),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ()),
    "HTTP/9.9": (post(b"content-length: 14", start=b"POST / HTTP/9.9"), (BODY,)),
    "another method's name": (post(b"content-length: 14", start=b"post / HTTP/1.1"), ()),
    "100-continue": (post(b"expect: 100-continue", b"content-length: 14"), (BODY,)),
    "another expectation": (post(b"expect: 200-ok", b"content-length: 14"), (BODY,)),
    "two hosts": (post(b"host: another.example", b"content-length: 14"), (BODY,)),
    "a host of another": (post(b"x-forwarded-host: a\x1b[31m", b"content-length: 14"), (BODY,)),
    "an upgrade to HTTP/2": (
        post(
            b"connection: upgrade, http2-settings",
            b"upgrade: h2c",
            b"http2-settings: AAMAAABkAAQAAP__",
            b"content-length: 14",
        ),
        (BODY,),
    ),
    "two credentials": (post(b"authorization: Basic eDp5", b"content-length: 14"), ()),
    "an empty line before": (b"\r\n" + post(b"content-length: 14"), (BODY,)),
    "a body behind no length": (post(b"x: y"), ()),
    "a GET with a body that is a request": (
        b"GET / HTTP/1.1\r\n" + AUTHORIZED + b"content-length: %d\r\n\r\n" % len(SECOND) + SECOND,
        (),
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), ()),
}

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from datetime import timedelta
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver.core.auth import BasicAuth, DgTokenAuth, ExtraAuth, NoAuth, SignedAuth
from dgreceiver.core.urls import build, callback_url, check
from dgreceiver.errors import SetupError

HOOK = "https://hooks.example.com/deepgram"
NOON = 1_800_000_000.0
JOB = "0123456789abcdef0123456789abcdef"
BASIC = BasicAuth("deepgram", "fake-password")
SIGNED = SignedAuth("fake-key-" * 4)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def url_for(auth, public_url=HOOK, **options):
    return callback_url(auth, public_url, now=NOON, job=JOB, **options)


def sent_by(url):
    """What Deepgram's HTTP client makes of the userinfo."""
    parts = urlsplit(url)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password)}".encode()
    return [(b"authorization", b"Basic " + b64encode(credentials))]


# --- what Deepgram calls


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(HOOK, id="https"),
        pytest.param("HTTPS://Hooks.Example.COM/", id="capitals"),
        pytest.param("http://hooks.example.com", id="no path"),
        pytest.param("ws://hooks.example.com/x", id="ws"),
        pytest.param("wss://hooks.example.com/x", id="wss"),
        pytest.param("http://hooks.example.com:80/", id="port 80"),
        pytest.param("https://hooks.example.com:443/", id="port 443"),
        pytest.param("http://hooks.example.com:8080/", id="port 8080"),
        pytest.param("https://hooks.example.com:8443/", id="port 8443"),
        pytest.param("https://hooks.example.com:/", id="an empty port"),
        pytest.param("https://hooks.example.com./", id="the root's dot"),
        pytest.param("https://b\u00fccher.example/", id="an international name"),
        pytest.param("https://localhost.example.com/", id="a name that begins as a local one"),
        pytest.param("https://hooks.notlocal/", id="a name that ends as a local one"),
        pytest.param("http://8.8.8.8/", id="a public IPv4 address"),
        pytest.param("http://[2001:4860:4860::8888]/", id="a public IPv6 address"),
        pytest.param("http://[::ffff:8.8.8.8]/", id="a public IPv4 address as IPv6"),
        pytest.param("http://1.2.3.example/", id="numbers that are no address"),
    ],
)
def test_a_public_address_passes(url):
    assert check(url).hostname == urlsplit(url).hostname


LOCAL = [
    pytest.param("localhost", id="localhost"),
    pytest.param("LOCALHOST", id="in capitals"),
    pytest.param("localhost.", id="with the root's dot"),
    pytest.param("hooks.localhost", id="below localhost"),
    pytest.param("printer.local", id="mDNS"),
    pytest.param("hooks.internal", id="a cloud's inside"),
    pytest.param("receiver", id="a name without a dot"),
    pytest.param("127.0.0.1", id="loopback"),
    pytest.param("127.0.0.1.", id="loopback with the root's dot"),
    pytest.param("127.1", id="loopback, short"),
    pytest.param("2130706433", id="loopback as one number"),
    pytest.param("0x7f.1", id="loopback in hexadecimal"),
    pytest.param("0177.0.0.1", id="loopback in octal"),
    pytest.param("\uff11\uff12\uff17.0.0.1", id="loopback in wide digits"),
    pytest.param("127\u30020\u30020\u30021", id="loopback with wide dots"),
    pytest.param("0.0.0.0", id="unspecified"),
    pytest.param("0", id="unspecified, short"),
    pytest.param("0x", id="unspecified, shortest hexadecimal"),
    pytest.param("10.1.2.3", id="private 10"),
    pytest.param("172.16.0.1", id="private 172.16"),
    pytest.param("192.168.1.1", id="private 192.168"),
    pytest.param("192.168.257", id="private, short"),
    pytest.param("100.64.0.1", id="carrier NAT"),
    pytest.param("169.254.169.254", id="link-local"),
    pytest.param("224.0.0.1", id="multicast"),
    pytest.param("[::1]", id="IPv6 loopback"),
    pytest.param("[::]", id="IPv6 unspecified"),
    pytest.param("[fe80::1]", id="IPv6 link-local"),
    pytest.param("[fd00::1]", id="IPv6 private"),
    pytest.param("[::ffff:127.0.0.1]", id="loopback as IPv6"),
    pytest.param("[::ffff:a00:1]", id="private as IPv6"),
    pytest.param("[::ffff:224.0.0.1]", id="multicast as IPv6"),
]


@pytest.mark.parametrize("host", LOCAL)
def test_a_host_that_means_something_only_at_home_is_refused(host):
    with pytest.raises(SetupError, match=r"is not one Deepgram can reach; use a public address .* or local=True"):
        check(f"https://{host}/deepgram")


@pytest.mark.parametrize("host", LOCAL)
def test_such_a_host_passes_with_local_on_any_port(host):
    check(f"http://{host}:5000/deepgram", local=True)


@pytest.mark.parametrize("local", [False, True])
def test_a_public_host_keeps_the_rule_about_ports(local):
    with pytest.raises(SetupError) as refused:
        check("https://hooks.example.com:5000/", local=local)
    assert str(refused.value) == "callback port 5000 is not one Deepgram calls; use 80, 443, 8080 or 8443"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("ftp://hooks.example.com/", "callback scheme ftp is not one Deepgram calls", id="scheme"),
        pytest.param("hooks.example.com/deepgram", "has no scheme; write all of it", id="no scheme"),
        pytest.param("", "has no scheme; write all of it", id="empty"),
        pytest.param(None, "is of type NoneType; write text", id="None"),
        pytest.param(b"https://hooks.example.com/", "is of type bytes; write text", id="bytes"),
        pytest.param("https:///deepgram", "has no host that can be looked up", id="no host"),
        pytest.param("https://:443/", "has no host that can be looked up", id="a port alone"),
        pytest.param("https://./", "has no host that can be looked up", id="the root alone"),
        pytest.param("https://a..example/", "has no host that can be looked up", id="an empty label"),
        pytest.param(f"https://{'a' * 64}.example/", "has no host that can be looked up", id="a label too long"),
        pytest.param("https://256.1.1.1/", "has no host that can be looked up", id="an address with too much"),
        pytest.param("https://1.2.3.4.5/", "has no host that can be looked up", id="an address with too many"),
        pytest.param("https://1.2.3.08/", "has no host that can be looked up", id="an address in bad octal"),
        pytest.param("https://[v1.a:b]/", "has no host that can be looked up", id="an address to come"),
        pytest.param("https://127%2e0.0.1/", "has no host that can be looked up", id="a percent-encoded host"),
        pytest.param("https://[fe80::1%25eth0]/", "has no host that can be looked up", id="a zone"),
        pytest.param("https://[::1/", "has a host or port that cannot be read", id="half a bracket"),
        pytest.param("https://hooks.example.com:x/", "has a host or port that cannot be read", id="a port in letters"),
        pytest.param("https://hooks.example.com:99999/", "has a host or port that cannot be read", id="port too high"),
        pytest.param("https://my_hooks.example.com/", "has a _, which Deepgram does not resolve", id="underscore"),
        pytest.param("http://my_app:8080/", "has a _, which Deepgram does not resolve", id="underscore, local"),
        pytest.param("https://hooks.example.com/#top", "leave out the # and all behind it", id="fragment"),
        pytest.param("https://hooks.example.com/#", "leave out the # and all behind it", id="an empty fragment"),
        pytest.param("https://hooks.example.com/a b", "percent-encode it", id="a space"),
        pytest.param("https://hooks.exa\nmple.com/", "percent-encode it", id="a line break"),
        pytest.param("https://127.0.0.1\\.example.com/", "percent-encode it", id="a backslash"),
        pytest.param("https://hooks.example.com/\ud800", "percent-encode it", id="a lone surrogate"),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_what_deepgram_refuses_is_refused_before(url, message, local):
    with pytest.raises(SetupError, match=message):
        check(url, local=local)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:fake-password@hooks.example.com:5000/",
        "ftp://fake-password@x.example/",
        "https:/me:fake-password@hooks.example.com/?to=https://x.example",
    ],
)
def test_a_message_never_holds_the_credentials_that_were_put_into_a_url(url):
    with pytest.raises(SetupError) as refused:
        check(url)
    assert "fake-password" not in str(refused.value)


def test_credentials_in_public_url_are_refused():
    with pytest.raises(SetupError, match="holds user:password@; leave it out"):
        check("https://me:fake-password@hooks.example.com/")


@given(st.text())
def test_whatever_is_written_for_a_host_is_taken_or_refused_in_our_words(host):
    with suppress(SetupError):
        check(f"https://{host}/", local=True)


# --- how the URL is written


@pytest.mark.parametrize(
    ("public_url", "options", "url"),
    [
        pytest.param(HOOK, {}, "https://me:pw@hooks.example.com/deepgram", id="as it is"),
        pytest.param(HOOK, {"websocket": True}, "wss://me:pw@hooks.example.com/deepgram", id="https to wss"),
        pytest.param("http://a.example:8080", {"websocket": True}, "ws://me:pw@a.example:8080", id="http to ws"),
        pytest.param("wss://a.example/x", {}, "wss://me:pw@a.example/x", id="wss stays"),
        pytest.param("wss://a.example/x", {"websocket": True}, "wss://me:pw@a.example/x", id="wss stays a websocket"),
        pytest.param("HTTPS://A.example/X", {}, "https://me:pw@A.example/X", id="only the scheme is lowered"),
        pytest.param("http://[::1]:9/x", {"local": True}, "http://me:pw@[::1]:9/x", id="a local address"),
    ],
)
def test_credentials_go_before_the_host(public_url, options, url):
    assert build(public_url, user="me", password="pw", **options) == url


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "/",
        "/?",
        "?x=1",
        "/deepgram/?b=%20+%2B&a=~'();:@&&",
        "/\u00fcber?q=\u00e9",
        "//x//?a=http://b.example:5000/_",
    ],
)
def test_path_and_query_are_kept_to_the_letter(tail):
    assert build(f"https://hooks.example.com{tail}") == f"https://hooks.example.com{tail}"


@given(user=texts.filter(lambda user: ":" not in user), password=texts)
def test_what_deepgram_decodes_from_the_url_is_what_basic_auth_admits(user, password):
    auth = BasicAuth(user, password)
    assert auth.admit(sent_by(url_for(auth)), now=NOON) is not None


# --- whose credentials


@pytest.mark.parametrize(
    ("auth", "begins"),
    [
        pytest.param(BASIC, "https://deepgram:fake-password@hooks", id="BasicAuth"),
        pytest.param(SIGNED, f"https://{JOB}:", id="SignedAuth"),
        pytest.param(NoAuth(), HOOK, id="NoAuth"),
        pytest.param(BASIC | SIGNED, "https://deepgram:", id="the leftmost, basic"),
        pytest.param(SIGNED | BASIC, f"https://{JOB}:", id="the leftmost, signed"),
        pytest.param(DgTokenAuth("fake-id") | ExtraAuth("fake-secret") | BASIC, "https://deepgram:", id="what fits"),
    ],
)
def test_the_leftmost_that_fits_in_a_url_writes_it(auth, begins):
    assert url_for(auth).startswith(begins)


@pytest.mark.parametrize("auth", [SIGNED, BASIC | SIGNED], ids=["alone", "behind another"])
def test_a_context_is_signed_into_the_url(auth):
    url = url_for(auth, context={"call_id": 7}, expires=timedelta(hours=1))
    admission = auth.admit(sent_by(url), now=NOON + 3599)
    assert admission is not None
    assert (admission.job, admission.context, admission.expired) == (JOB, {"call_id": 7}, False)


def test_a_signed_url_needs_no_percent_encoding():
    assert "%" not in url_for(SIGNED, context={"who": "\u00e9\u4e2d%&?/" * 20})


def test_a_url_expires_when_it_was_told_to():
    admission = SIGNED.admit(sent_by(url_for(SIGNED, expires=0.001)), now=NOON + 1)
    assert admission is not None
    assert admission.expired


def test_an_empty_context_needs_no_signature():
    assert url_for(BASIC, context={}) == url_for(BASIC)


@pytest.mark.parametrize(
    ("auth", "options", "message"),
    [
        pytest.param(BASIC, {"context": {"a": 1}}, r"context= has to be signed.*write auth=SignedAuth\(", id="context"),
        pytest.param(DgTokenAuth("fake-id"), {}, r"fits in a URL; submit public_url as it is", id="a token"),
        pytest.param(ExtraAuth("fake-secret"), {}, r"fits in a URL; submit public_url as it is", id="a body"),
        pytest.param(SIGNED, {"expires": 0}, "expires is 0, so the URL would never be good", id="never good"),
        pytest.param(SIGNED, {"expires": -1}, "expires is -1; write a timedelta", id="over already"),
        pytest.param(BASIC, {"expires": float("nan")}, "expires is nan; write a timedelta", id="no duration"),
        pytest.param(BASIC, {"public_url": "http://localhost/"}, "is not one Deepgram can reach", id="a local host"),
    ],
)
def test_what_cannot_become_a_url_says_what_to_write_instead(auth, options, message):
    with pytest.raises(SetupError, match=message) as refused:
        url_for(auth, **options)
    assert "fake-" not in str(refused.value)


def test_without_public_url_there_is_no_callback_url():
    with pytest.raises(SetupError) as refused:
        url_for(BASIC, None)
    assert str(refused.value) == (
        "callback_url() needs public_url: the address Deepgram will call, path included, "
        'such as "https://hooks.example.com/deepgram"'
    )

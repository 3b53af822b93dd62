from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dgreceiver.core.auth import Admission, BasicAuth, DgTokenAuth, ExtraAuth, NoAuth, SignedAuth
from dgreceiver.core.callbacks import load_json
from dgreceiver.errors import SetupError

NOON = 1_800_000_000.0
JOB = "0123456789abcdef0123456789abcdef"
KEY = "fake-key-" * 4
SECRET = "fake-secret/with-a-slash"
BASIC = BasicAuth("deepgram", "fake-password")
SIGNED = SignedAuth(KEY)
EXTRA = ExtraAuth(SECRET)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
short = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
secrets = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='*"'), min_size=1, max_size=10)
headers = st.lists(st.tuples(st.sampled_from([b"authorization", b"dg-token", b"host"]), st.binary()))


def basic(user, password, scheme="Basic"):
    return scheme.encode() + b" " + b64encode(f"{user}:{password}".encode())


def authorization(*values):
    return [(b"host", b"hooks.example.com"), *((b"authorization", value) for value in values)]


def signed(auth=SIGNED, **options):
    return auth.sign(**{"job": JOB, "context": {"call_id": 7}, "expires": 60.0, "now": NOON, **options})


def admit_signed(user, password, *, auth=SIGNED, now=NOON):
    return auth.admit(authorization(basic(user, password)), now=now)


# --- the head of a request


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(basic("deepgram", "fake-password"), id="as written"),
        pytest.param(basic("deepgram", "fake-password", "bAsIc"), id="scheme in any case"),
        pytest.param(basic("deepgram", "fake-password").rstrip(b"="), id="without padding"),
        pytest.param(basic("deepgram", "fake-password") + b"==", id="with more padding"),
        pytest.param(basic("deepgram", "fake-password").replace(b" ", b"  ") + b" ", id="with more spaces"),
    ],
)
def test_the_right_credentials_are_admitted_in_every_spelling(value):
    assert BASIC.admit(authorization(value), now=NOON) == Admission(1, "BasicAuth")


NOBODY = [
    pytest.param([], id="no header at all"),
    pytest.param(authorization(), id="no authorization"),
    pytest.param(authorization(b""), id="an empty one"),
    pytest.param(authorization(b"Basic"), id="the scheme alone"),
    pytest.param(authorization(b"Basic "), id="nothing behind the scheme"),
    pytest.param(authorization(basic("deepgram", "wrong")), id="wrong password"),
    pytest.param(authorization(basic("someone", "fake-password")), id="wrong user"),
    pytest.param(authorization(basic("", "")), id="a colon alone"),
    pytest.param(authorization(b"Basic " + b64encode(b"deepgram")), id="no colon"),
    pytest.param(authorization(b"Basic !!!!"), id="not base64"),
    pytest.param(authorization(b"Basic A"), id="base64 cut off"),
    pytest.param(authorization(basic("deepgram", "fake-password") + b"=x"), id="more behind the padding"),
    pytest.param(authorization("Basic \u00e9".encode()), id="not ASCII"),
    pytest.param(authorization(b"Basic " + b64encode(b"deepgram:\xff\xfe")), id="not UTF-8"),
    pytest.param(authorization(basic("deepgram", "fake-password", "Bearer")), id="another scheme"),
    pytest.param(authorization(basic("deepgram", "fake-password")[6:]), id="no scheme"),
    pytest.param(authorization(*[basic("deepgram", "fake-password")] * 2), id="said twice"),
    pytest.param(authorization(basic("deepgram", "x" * 10**6)), id="a huge header"),
    pytest.param(authorization(basic("deepgram", "fake-password") + b" " * 10_000), id="a right one, blown up"),
    pytest.param(authorization(basic(JOB, "x" * 2000)), id="a huge token"),
    pytest.param(authorization(basic(JOB, "a.b")), id="a token of nobody's"),
    pytest.param([(b"dg-token", b"wrong")], id="wrong dg-token"),
    pytest.param([(b"dg-token", b"fake-id"), (b"dg-token", b"fake-id")], id="dg-token said twice"),
]


@pytest.mark.parametrize("head", NOBODY)
@pytest.mark.parametrize(
    "auth",
    [BASIC, SIGNED, DgTokenAuth("fake-id"), EXTRA, BASIC | SIGNED | DgTokenAuth("fake-id") | EXTRA],
    ids=["BasicAuth", "SignedAuth", "DgTokenAuth", "ExtraAuth", "all of them"],
)
def test_nobody_else_is_admitted(auth, head):
    assert auth.admit(head, now=NOON) is None


@given(head=headers)
@pytest.mark.parametrize("auth", [BASIC, SIGNED, EXTRA, BASIC | SIGNED | DgTokenAuth("fake-id")], ids=repr)
def test_no_head_raises_or_guesses_right(auth, head):
    assert auth.admit(head, now=NOON) is None


@given(user=texts.filter(lambda user: ":" not in user), password=texts)
@example(user="d", password="a:b:")
@example(user="\u00e9", password="\U0001f511")
def test_any_user_and_password_admit_themselves_and_nobody_else(user, password):
    auth = BasicAuth(user, password)
    assert auth.admit(authorization(basic(user, password)), now=NOON) == Admission(1, "BasicAuth")
    assert auth.admit(authorization(basic(user, password + "x")), now=NOON) is None


def test_headers_may_be_read_once():
    auth = BASIC | SIGNED
    assert auth.admit(iter(authorization(basic(*signed()))), now=NOON).by == 2


def test_dg_token_admits_the_key_s_identifier():
    auth = DgTokenAuth("fake-id")
    assert auth.admit([(b"dg-token", b"fake-id")], now=NOON) == Admission(1, "DgTokenAuth")


def test_no_auth_admits_everyone_by_the_head_alone():
    assert NoAuth().admit([], now=NOON) == Admission(1, "NoAuth")
    assert NoAuth().admit_body(b"{}") is None


# --- signed


def test_a_signature_says_for_which_job_it_was_made():
    user, password = signed()
    assert user == JOB
    assert admit_signed(user, password) == Admission(1, "SignedAuth", JOB, {"call_id": 7})


@pytest.mark.parametrize(
    ("later", "expired"), [(0, False), (59.9, False), (60, True), (10**9, True)], ids=["at once", "just", "over", "old"]
)
def test_a_right_signature_past_its_time_is_known_and_expired(later, expired):
    admission = admit_signed(*signed(expires=timedelta(minutes=1)), now=NOON + later)
    assert (admission.job, admission.context, admission.expired) == (JOB, {"call_id": 7}, expired)


@given(st.data())
def test_no_other_credentials_than_those_that_were_signed_are_admitted(data):
    sent = ":".join(signed()).encode()
    at = data.draw(st.integers(0, len(sent) - 1))
    forged = sent[:at] + data.draw(st.binary(max_size=2)) + sent[at + data.draw(st.integers(0, 2)) :]
    assume(forged != sent)
    assert SIGNED.admit(authorization(b"Basic " + b64encode(forged)), now=NOON) is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda user, password: ("f" * 32, password), id="another job"),
        pytest.param(lambda user, password: (user, signed(job="f" * 32)[1]), id="another job's token"),
        pytest.param(lambda user, password: (user, signed(SignedAuth("x" * 40))[1]), id="another key"),
        pytest.param(
            lambda user, password: (
                user,
                signed(context={"call_id": 8})[1].split(".")[0] + "." + password.split(".")[1],
            ),
            id="another context",
        ),
        pytest.param(lambda user, password: ("", password), id="no job"),
        pytest.param(lambda user, password: (user, ""), id="no token"),
    ],
)
def test_a_token_holds_for_its_job_its_context_and_its_key(other):
    assert admit_signed(*other(*signed())) is None


numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
flat = st.dictionaries(short, st.none() | st.booleans() | numbers | short, max_size=4)


@given(context=flat, expires=st.floats(0.001, 1e9), job=st.text("abcXYZ019-_~ %", min_size=1, max_size=200))
def test_what_was_signed_comes_back_whole(context, expires, job):
    user, password = signed(context=context, expires=expires, job=job)
    assert admit_signed(user, password) == Admission(1, "SignedAuth", job, context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"context": [1]}, "context is of type list; context is a flat JSON object", id="a list"),
        pytest.param({"context": {7: "a"}}, "context has a name of type int; context is a flat", id="a name"),
        pytest.param({"context": {"a": {}}}, r"context\['a'\] is of type dict; context is a flat", id="nested"),
        pytest.param({"context": {"a": b"x"}}, r"context\['a'\] is of type bytes; ", id="bytes"),
        pytest.param({"context": {"a": float("inf")}}, r"context\['a'\] is inf; ", id="without end"),
        pytest.param({"context": {"a": "\ud800"}}, "context holds what JSON cannot; ", id="half a character"),
        pytest.param({"context": {"a": 10**5000}}, "context holds what JSON cannot; ", id="too many digits"),
        pytest.param({"context": {"a": "\u4e2d" * 400 + KEY}}, None, id="compressed it fits"),
        pytest.param({"context": {str(n): n**9 for n in range(99)}}, "over 1024; sign an id and look", id="too long"),
        pytest.param({"job": ""}, "a job id is printable ASCII without a colon", id="no job"),
        pytest.param({"job": "a:b"}, "a job id is printable ASCII without a colon", id="a colon in the job"),
        pytest.param({"job": "\u00e9"}, "a job id is printable ASCII without a colon", id="a job beyond ASCII"),
        pytest.param({"job": "a" * 201}, "a job id is printable ASCII without a colon", id="a long job"),
        pytest.param({"expires": 0}, "expires is 0, so the URL would never be good", id="no time"),
        pytest.param({"expires": "1h"}, "expires is of type str; write a timedelta", id="time in words"),
    ],
)
def test_what_cannot_be_signed_says_what_to_write_instead(options, message):
    if message is None:
        assert len(signed(**options)[1]) <= 1024
    else:
        with pytest.raises(SetupError, match=message):
            signed(**options)


def test_a_key_is_rotated_by_putting_the_new_one_before_the_old():
    new = SignedAuth("fake-new-" * 4)
    assert admit_signed(*signed(), auth=new | SIGNED).by == 2
    assert admit_signed(*signed(new), auth=new | SIGNED).by == 1
    assert admit_signed(*signed(), auth=new) is None


# --- several


@pytest.mark.parametrize(
    ("auth", "by", "name"),
    [
        pytest.param(BASIC | NoAuth(), 1, "BasicAuth", id="the leftmost of two"),
        pytest.param(NoAuth() | BASIC, 1, "NoAuth", id="the leftmost of two, turned round"),
        pytest.param(SIGNED | (DgTokenAuth("fake-id") | BASIC), 3, "BasicAuth", id="nested to the right"),
        pytest.param((SIGNED | EXTRA) | (EXTRA | BASIC), 4, "BasicAuth", id="nested on both sides"),
    ],
)
def test_one_that_is_content_is_enough_and_is_counted_from_the_left(auth, by, name):
    assert auth.admit(authorization(basic("deepgram", "fake-password")), now=NOON) == Admission(by, name)


def test_an_admission_that_names_the_job_goes_before_one_that_does_not():
    head = [*authorization(basic(*signed())), (b"dg-token", b"fake-id")]
    admission = (DgTokenAuth("fake-id") | SIGNED).admit(head, now=NOON)
    assert (admission.by, admission.job) == (2, JOB)


def test_an_admission_that_holds_goes_before_one_that_expired():
    admission = admit_signed(*signed(), auth=SIGNED | NoAuth(), now=NOON + 61)
    assert (admission.name, admission.expired) == ("NoAuth", False)


def test_every_candidate_is_asked_even_if_the_first_is_content():
    asked = []

    class Listening(NoAuth):
        def admit(self, headers, *, now):
            asked.append(now)
            return super().admit(headers, now=now)

    (Listening() | Listening() | Listening()).admit([], now=NOON)
    assert asked == [NOON] * 3


def test_an_auth_goes_together_with_an_auth_only():
    with pytest.raises(TypeError):
        BASIC | None  # type: ignore[operator]


# --- what the developer writes


@pytest.mark.parametrize("value", ["", None, 7, b"fake-password", "fake-password\ud800"], ids=ascii)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(lambda value: BasicAuth(value, "x"), "BasicAuth's user", id="user"),
        pytest.param(lambda value: BasicAuth("x", value), "BasicAuth's password", id="password"),
        pytest.param(SignedAuth, "SignedAuth's key", id="key"),
        pytest.param(DgTokenAuth, "DgTokenAuth's key_id", id="key_id"),
        pytest.param(ExtraAuth, "ExtraAuth's secret", id="secret"),
        pytest.param(lambda value: ExtraAuth("x", value), "ExtraAuth's name", id="name"),
    ],
)
def test_a_credential_is_text_that_is_not_empty(make, name, value):
    with pytest.raises(SetupError, match=rf"^{name} (is of type|is empty|holds what).*; write \w+Auth\(") as refused:
        make(value)
    assert "fake-password" not in str(refused.value)


@pytest.mark.parametrize("secret", ["fake*secret", 'fake"secret'])
def test_an_extra_secret_without_the_characters_of_its_mask(secret):
    with pytest.raises(SetupError, match=r"make one with secrets\.token_urlsafe") as refused:
        ExtraAuth(secret)
    assert "fake" not in str(refused.value)


def test_a_user_ends_at_the_colon():
    with pytest.raises(SetupError, match="BasicAuth's user holds a colon, which would end it; write BasicAuth"):
        BasicAuth("deep:gram", "fake-password")


@pytest.mark.parametrize(
    ("auth", "shown"),
    [
        pytest.param(BASIC, "BasicAuth('deepgram', \u2026)", id="BasicAuth"),
        pytest.param(SIGNED, "SignedAuth(\u2026)", id="SignedAuth"),
        pytest.param(DgTokenAuth("fake-id"), "DgTokenAuth(\u2026)", id="DgTokenAuth"),
        pytest.param(EXTRA | NoAuth(), "ExtraAuth(\u2026, 'callback_secret') | NoAuth()", id="two"),
    ],
)
def test_what_is_shown_of_an_auth_holds_no_secret(auth, shown):
    assert repr(auth) == shown


@pytest.mark.parametrize(
    ("auth", "warned"),
    [
        pytest.param(BASIC | SIGNED | EXTRA | NoAuth(), [], id="nothing to say"),
        pytest.param(SignedAuth("k" * 31), ["key is under 32 characters"], id="a short key"),
        pytest.param(DgTokenAuth("fake-id"), ["Deepgram ended support for dg-token on 2026-10-27"], id="dg-token"),
        pytest.param(DgTokenAuth("i") | SignedAuth("k"), ["2026-10-27", "under 32"], id="both"),
    ],
)
def test_warnings_say_what_may_not_hold(auth, warned):
    warnings = auth.warnings()
    assert len(warnings) == len(warned)
    assert all(part in warning for part, warning in zip(warned, warnings, strict=True))


# --- the body of a request: who it is


def recorded(extra: Any, /, **more: Any) -> bytes:
    return json.dumps({"metadata": {"request_id": "r", "extra": extra}, "results": {"channels": []}, **more}).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(recorded({"callback_secret": SECRET}), id="recorded"),
        pytest.param(b'{"type":"Results","metadata":{"extra":{"callback_secret":"%s"}}}' % SECRET.encode(), id="live"),
        pytest.param(
            b'{"type":"Metadata","extra":{"callback_secret":"%s"}}' % SECRET.encode(), id="the end of a stream"
        ),
        pytest.param(recorded({"callback_secret": SECRET}, x=float("nan")), id="beside what only Python takes"),
        pytest.param(
            recorded({"callback_secret": "wrong"}, extra={"callback_secret": SECRET}), id="in one of two places"
        ),
        pytest.param(recorded({"callback_secret": SECRET}).replace(b"fake", rb"\u0066ake"), id="spelled otherwise"),
    ],
)
def test_a_body_that_carries_the_secret_is_admitted(body):
    assert EXTRA.admit_body(body) == Admission(1, "ExtraAuth")
    assert (BASIC | EXTRA).admit_body(body) == Admission(2, "ExtraAuth")
    assert (ExtraAuth("fake-new") | EXTRA).admit_body(body) == Admission(2, "ExtraAuth")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(recorded({"callback_secret": "wrong"}), id="wrong"),
        pytest.param(recorded({"callback_secret": ""}), id="empty"),
        pytest.param(recorded({"callback_secret": "\ud800"}), id="half a character"),
        pytest.param(recorded({"callback_secret": [SECRET]}), id="a list"),
        pytest.param(recorded({"callback_secret": None}), id="null"),
        pytest.param(recorded({"other": SECRET}), id="another name"),
        pytest.param(recorded([{"callback_secret": SECRET}]), id="a list of extras"),
        pytest.param(recorded({}, other={"extra": {"callback_secret": SECRET}}), id="somewhere else"),
        pytest.param(recorded({}, callback_secret=SECRET), id="outside of extra"),
        pytest.param(b'{"metadata":[{"extra":{"callback_secret":"%s"}}]}' % SECRET.encode(), id="metadata in a list"),
        pytest.param(b'{"type":"SpeechStarted","channel":[0,1],"timestamp":1.5}', id="a message that carries nothing"),
        pytest.param(recorded({"callback_secret": SECRET})[:-1], id="cut off"),
        pytest.param(b'["%s"]' % SECRET.encode(), id="a list of secrets"),
        pytest.param(b'{"extra":' * 100_000, id="without end"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"RIFF\xff\xff", id="audio"),
    ],
)
@pytest.mark.parametrize("auth", [EXTRA, ExtraAuth("fake-new") | EXTRA, BASIC | NoAuth()], ids=repr)
def test_a_body_that_does_not_is_not(auth, body):
    assert auth.admit_body(body) is None


@given(st.binary())
def test_no_body_raises(body):
    assert EXTRA.admit_body(body) is None


def test_a_number_is_not_the_text_that_looks_like_it():
    assert ExtraAuth("7").admit_body(b'{"extra":{"callback_secret":7}}') is None


@pytest.mark.parametrize(
    ("auth", "reads"),
    [(BASIC, False), (EXTRA, True), (BASIC | SIGNED, False), (BASIC | (SIGNED | EXTRA), True)],
    ids=["head", "body", "heads", "nested"],
)
def test_whether_the_body_is_needed_is_known_before(auth, reads):
    assert auth.reads_body is reads


def test_an_extra_auth_says_nothing_to_a_head():
    assert EXTRA.admit([(b"callback_secret", SECRET.encode())], now=NOON) is None


# --- the body of a request: what must not stay in it


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        pytest.param('{"metadata":{"extra":{"callback_secret":"S"}}}', '{"metadata":{"extra":{"callback_secret":"***"}}}', id="recorded"),
        pytest.param('{"extra":{"callback_secret":"S","a":"b"}}', '{"extra":{"callback_secret":"***","a":"b"}}', id="top level"),
        pytest.param('[{"extra" :\n{ "callback_secret"\t: "S" } }]', '[{"extra" :\n{ "callback_secret"\t: "***" } }]', id="whitespace"),
        pytest.param(r'{"extr\u0061":{"\u0063allback_secret":"S"}}', r'{"extr\u0061":{"\u0063allback_secret":"***"}}', id="keys in escapes"),
        pytest.param(r'{"extra":{"callback\u005Fsecret":"\u0053"}}', r'{"extra":{"callback\u005Fsecret":"***"}}', id="capital escapes"),
        pytest.param('{"extra":{"callback_secret":"S","callback_secret":"S"}}', '{"extra":{"callback_secret":"***","callback_secret":"***"}}', id="twice"),
        pytest.param('{"extra":{"callback_secret":["S",{"extra":{"callback_secret":1}}],"b":[]}}', '{"extra":{"callback_secret":"***","b":[]}}', id="a list"),
        pytest.param('{"extra":{"callback_secret":{}}}', '{"extra":{"callback_secret":"***"}}', id="an object"),
        pytest.param('{"extra":{"callback_secret":-1.5e3 }}', '{"extra":{"callback_secret":"***" }}', id="a number"),
        pytest.param('{"extra":{"a":{"extra":{"callback_secret":"S"}}}}', '{"extra":{"a":{"extra":{"callback_secret":"***"}}}}', id="an extra within"),
        pytest.param('{"extra":{"a":{"callback_secret":"S"},"b":[{"callback_secret":"S"}]}}', None, id="not right below"),
        pytest.param('{"extra":[{"callback_secret":"S"}]}', None, id="a list of extras"),
        pytest.param('{"other":{"callback_secret":"S"},"callback_secret":"S"}', None, id="outside of extra"),
        pytest.param('{"extra":{"CALLBACK_SECRET":"S","callback_secret2":"S"}}', None, id="other names"),
        pytest.param(r'{"transcript":"he said \"extra\": {\"callback_secret\": \"S\"}"}', None, id="in a transcript"),
        pytest.param(r'{"transcript":"\\","extra":{"callback_secret":"S"}}', r'{"transcript":"\\","extra":{"callback_secret":"***"}}', id="behind a backslash"),
        pytest.param('{"transcript":"extra","b":"callback_secret","c":"S"}', None, id="as values"),
        pytest.param(r'{"an \"extra":{"callback_secret":"S"}}', None, id="a key that ends in extra"),
        pytest.param(r'{"an \"extra":{"callback_secret":"S"},"\u0061":1}', None, id="a key that ends in extra, beside escapes"),
        pytest.param('{"x":NaN,"extra":{"callback_secret":"S"},"t":"S"}', '{"x":NaN,"extra":{"callback_secret":"***"},"t":"S"}', id="beside NaN"),
    ],
)  # fmt: skip
def test_in_json_the_values_go_that_stand_where_deepgram_puts_them(body, stored):
    before, after = (text.replace("S", SECRET).encode() for text in (body, stored or body))
    assert EXTRA.redact(before) == after


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        pytest.param('{"extra":{"callback_secret":"S', '{"extra":{"callback_secret":"***"', id="cut behind the value"),
        pytest.param('{"extra":{"callback_secret":"fake-', '{"extra":{"callback_secret":"***"', id="cut in the value"),
        pytest.param('{"extra":{"callback_secret":"fake\\', '{"extra":{"callback_secret":"***"', id="cut in an escape"),
        pytest.param('{"extra":{"callback_secret":', None, id="cut before the value"),
        pytest.param('{"extra":{"callback_secret"', None, id="cut before the colon"),
        pytest.param('{"extra":{"callback_secret":}}', None, id="no value"),
        pytest.param('{"extra":{"callback_secret":"S"x"y"}} trail', '{"extra":{"callback_secret":"***"}} trail', id="junk behind the value"),
        pytest.param('{"extra":{"callback_secret":"S"}}{"t":"S"}', '{"extra":{"callback_secret":"***"}}{"t":"***"}', id="something behind"),
        pytest.param('{"extra":{"callback_secret":"S"}},\xff', '{"extra":{"callback_secret":"***"}},\xff', id="not UTF-8"),
        pytest.param("callback_secret=S&a=b", "callback_secret=***&a=b", id="a form"),
        pytest.param(r'{"t":"\u0066ake-secret\/with-a-slash', '{"t":"***', id="in escapes"),
        pytest.param(r'{"t":"fake-secret\/with-a-slash', '{"t":"***', id="in a short escape"),
        pytest.param('{"t":"S","extra":{"callback_secret":"fake-', '{"t":"***","extra":{"callback_secret":"***"', id="whole and in part"),
        pytest.param("S", "***", id="the secret alone"),
        pytest.param("", None, id="nothing"),
    ],
)  # fmt: skip
def test_what_is_no_json_loses_the_secret_wherever_it_stands(body, stored):
    before, after = (text.replace("S", SECRET).encode("latin-1") for text in (body, stored or body))
    assert EXTRA.redact(before) == after


def test_a_secret_beyond_ascii_goes_in_escapes_too():
    assert ExtraAuth("\u4e2d\U0001f511").redact(rb'{"t":"\u4E2d\ud83d\uDD11') == b'{"t":"***'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_body_in_another_encoding_than_json_s_loses_it_too(encoding):
    body = json.dumps({"extra": {"callback_secret": SECRET}}).encode(encoding)
    assert SECRET not in EXTRA.redact(body).decode(encoding, "replace")


@pytest.mark.parametrize(
    "opened", [b"[" * 100_000, b'{"a":' * 100_000, b'{"extra":' * 100_000], ids=["lists", "objects", "extras"]
)
def test_brackets_without_end_are_no_way_round(opened):
    hidden = b'{"extra":{"callback_secret":"%s"}}'
    assert EXTRA.redact(opened + hidden % SECRET.encode()) == opened + hidden % b"***"


def test_all_secrets_of_an_auth_go_at_once():
    auth = ExtraAuth("fake-new") | BASIC | ExtraAuth("fake-old", name="other")
    assert auth.redact(b'{"extra":{"callback_secret":"x","other":"y","third":"z"}}') == (
        b'{"extra":{"callback_secret":"***","other":"***","third":"z"}}'
    )
    assert auth.redact(b"fake-new fake-old") == b"*** ***"


def test_without_an_extra_auth_nothing_is_touched():
    body = recorded({"callback_secret": SECRET})
    assert (BASIC.redact(body), (BASIC | SIGNED).redact(body)) == (body, body)


names = st.sampled_from(["callback_secret", "a/b", 'q"\\', "\u00e9", "\U0001f511", "\n", "extra"]) | short
words = st.sampled_from(["extra", "metadata", "callback_secret", SECRET]) | st.text(max_size=5)


def documents(name: str, secret: str) -> st.SearchStrategy[Any]:
    """JSON in which names, secrets and extras are likelier than elsewhere."""
    keys = st.sampled_from(["extra", "metadata", name]) | words
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words | st.just(secret)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=10
    )


def spell(dice: Random, document: Any) -> bytes:
    """Write JSON with escapes and whitespace wherever the dice put them."""
    space = dice.choice([b"", b"", b" ", b"\n\t"])
    if isinstance(document, str):
        return ('"' + "".join(spell_character(dice, one) for one in document) + '"').encode()
    if isinstance(document, list):
        return b"[" + b",".join(spell(dice, one) for one in document) + space + b"]"
    if isinstance(document, dict):
        pairs = [spell(dice, name) + space + b":" + spell(dice, one) for name, one in document.items()]
        return b"{" + b",".join(pairs) + space + b"}"
    return space + json.dumps(document).encode() + space


SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def spell_character(dice: Random, character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4))
    ways = [escaped, escaped.upper().replace("U", "u")]
    ways += [SHORT[character]] if character in SHORT else []
    ways += [character] * 5 if is_plain(character) else []
    return dice.choice(ways)


def is_plain(character: str) -> bool:
    return character >= " " and character not in '"\\' and not "\ud800" <= character <= "\udfff"


@st.composite
def bodies(draw: st.DrawFn) -> tuple[ExtraAuth, Any, bytes]:
    name, secret = draw(names), draw(secrets)
    document = draw(documents(name, secret))
    return ExtraAuth(secret, name), document, spell(Random(draw(st.integers(0, 2**32))), document)


@st.composite
def broken_bodies(draw: st.DrawFn) -> tuple[ExtraAuth, bytes]:
    auth, _, body = draw(bodies())
    secret = auth.secret.encode()
    for _ in range(draw(st.integers(1, 4))):
        at, to = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
        junk = draw(
            st.binary(max_size=3) | st.sampled_from([secret, b'"', b"{", b"}", b"\\", b'"extra":{', b":", b"\0"])
        )
        body = body[:at] + junk + body[draw(st.sampled_from([at, to])) :]
    return auth, body


def without_secrets(document: Any, name: str, mask: str = "***", *, is_extra: bool = False) -> Any:
    if isinstance(document, list):
        return [without_secrets(one, name, mask) for one in document]
    if isinstance(document, dict):
        return {
            key: mask if is_extra and key == name else without_secrets(value, name, mask, is_extra=key == "extra")
            for key, value in document.items()
        }
    return document


def read_escapes(body: bytes) -> bytes:
    """What somebody would see who undid the escapes of what is no JSON."""
    return re.sub(rb'\\(u[0-9a-fA-F]{4}|[bfnrt"/\\])', lambda found: load_json(b'"%s"' % found[0]).encode("utf-8", "surrogatepass"), body)  # fmt: skip


@given(bodies())
def test_in_any_json_exactly_those_values_are_replaced(case):
    auth, document, body = case
    assert load_json(auth.redact(body)) == without_secrets(document, auth.name)


@given(bodies())
def test_json_without_the_name_stays_byte_for_byte(case):
    auth, document, body = case
    assume(without_secrets(document, auth.name, "a") == without_secrets(document, auth.name, "b"))
    assert auth.redact(body) == body


@given(broken_bodies())
def test_what_is_no_json_holds_the_secret_in_no_spelling(case):
    auth, body = case
    stored, secret = auth.redact(b"}" + body), auth.secret.encode()
    assert secret not in stored
    assert secret not in read_escapes(stored)


@given(bodies().map(lambda case: (case[0], case[2])) | broken_bodies() | st.tuples(st.just(EXTRA), st.binary()))
def test_a_body_redacted_again_is_the_same(case):
    auth, body = case
    once = auth.redact(body)
    assert auth.redact(once) == once

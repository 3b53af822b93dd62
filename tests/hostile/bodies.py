"""Bodies that are made to hurt: what a reader chokes on, at any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping

WORD = '{"word":"a","start":0.1,"end":0.2,"confidence":0.9}'


def recorded(channels: str = "", *, about: str = "", beside: str = "") -> bytes:
    """A recorded transcript around what hurts."""
    return (f'{{"metadata":{{"request_id":"r"{about}}},"results":{{"channels":[{channels}]{beside}}}}}').encode()


def spoken(fields: str) -> bytes:
    return recorded(f'{{"alternatives":[{{{fields}}}]}}')


def many(unit: str, size: int) -> str:
    """A list of equal things."""
    return "[" + ",".join([unit] * (size // (len(unit) + 1))) + "]"


def numbered(unit: str, size: int) -> str:
    """Things in which a number stands for the %d, so that no two are equal; a comma between them."""
    return ",".join(unit % number for number in range(size // (len(unit) + 4)))


# By name: a body of about so many bytes.
BOMBS: Mapping[str, Callable[[int], bytes]] = {
    "zeros": lambda size: b"\0" * size,
    "spaces": lambda size: b" " * size,
    "quotes": lambda size: b'"' * size,
    "brackets without end": lambda size: b"[" * size,
    "objects without end": lambda size: b'{"a":' * (size // 5),
    "nested as deep as can be read": lambda size: recorded(about=',"x":' + "[" * 400 + "]" * 400),
    "insights within insights": lambda size: recorded(
        beside=',"topics":' + '{"results":{"topics":' * 400 + "{}" + "}}" * 400
    ),
    "a number beyond all numbers": lambda size: spoken(f'"confidence":{"9" * size}'),
    "a number nobody asked for": lambda size: recorded(about=f',"x":{"9" * size}'),
    "numbers of 4000 digits": lambda size: recorded(about=',"x":' + many("9" * 4000, size)),
    "1e999999": lambda size: recorded(about=',"x":' + many("1e999999", size)),
    "times without end": lambda size: spoken('"words":[{"word":"a","start":1e999,"end":-1e999,"confidence":NaN}]'),
    "a long fraction": lambda size: recorded(about=f',"duration":0.{"1" * size}'),
    "escapes": lambda size: spoken('"transcript":"' + "\\u0041" * (size // 6) + '"'),
    "half surrogate pairs": lambda size: spoken('"transcript":"' + "\\ud800" * (size // 6) + '"'),
    "backslashes": lambda size: spoken('"transcript":"' + "\\\\" * (size // 2) + '"'),
    "a million keys": lambda size: ("{" + numbered('"%d":0', size) + "}").encode(),
    "one key a million times": lambda size: b"{" + b'"metadata":{},' * (size // 14) + b'"metadata":{}}',
    "a long key": lambda size: b'{"' + b"a" * size + b'":1}',
    "extra within extra": lambda size: b'{"extra":' * (size // 9),
    "extra in escapes": lambda size: b'{"\\u0065xtra":{' * (size // 14),
    "secrets without end": lambda size: b'{"extra":{' + b'"callback_secret":' * (size // 18),
    "words that are none": lambda size: spoken('"words":' + many("0", size)),
    "words that nearly are": lambda size: spoken('"words":' + many('{"word":1,"start":0}', size)),
    "a speaker for each word": lambda size: spoken('"words":[' + numbered(WORD[:-1] + ',"speaker":%d}', size) + "]"),
    "channels of nothing": lambda size: recorded(many("{}", size)[1:-1]),
    "channels of a word": lambda size: recorded(many('{"alternatives":[{"words":[' + WORD + "]}]}", size)[1:-1]),
    "alternatives of nothing": lambda size: recorded('{"alternatives":' + many("{}", size) + "}"),
    "alternatives that are odd": lambda size: recorded('{"alternatives":' + many('{"words":0}', size) + "}"),
    "utterances of nothing": lambda size: recorded(beside=',"utterances":' + many("{}", size)),
    "utterances": lambda size: recorded(
        beside=',"utterances":' + many('{"start":0,"end":1,"transcript":"a","speaker":"b"}', size)
    ),
    "models that are numbers": lambda size: recorded(about=',"models":' + many("1", size)),
    "models without end": lambda size: recorded(about=',"model_info":{' + numbered('"%d":{"name":1}', size) + "}"),
    "arrows": lambda size: spoken('"transcript":"' + "-->" * (size // 3) + '"'),
    "what HTML escapes": lambda size: spoken('"transcript":"' + "&<>" * (size // 3) + '"'),
}

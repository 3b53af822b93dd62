"""Captions: SRT and WebVTT files made of utterances.

They look as deepgram-captions writes them: some words a cue, no cue with two speakers, the speakers' labels. Not
built on it: that library writes the first channel only, escapes nothing, has no hour 24 and no empty file.

Source: https://www.w3.org/TR/webvtt1/; SRT has no specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from ..errors import SetupError
from .parts import LATEST, Utterance, Word

WORDS_PER_LINE = 8


@dataclass(frozen=True, slots=True)
class _Cue:
    """A line on the screen. `channel` is None where there is but one."""

    start: int  # milliseconds
    end: int  # milliseconds; behind the start, as WebVTT demands
    text: str
    speaker: int | None
    channel: int | None

    @property
    def who(self) -> str:
        """As in `channel 1 speaker 0`."""
        known = {"channel": self.channel, "speaker": self.speaker}
        return " ".join(f"{name} {number}" for name, number in known.items() if number is not None)


def srt(utterances: Iterable[Utterance], words_per_line: int = WORDS_PER_LINE) -> str:
    """Captions as SubRip has them; who speaks is said where it changes.

    Raises: SetupError if a line is to have no words.
    """
    blocks, before = [], ""
    for number, cue in enumerate(_cues(utterances, words_per_line), start=1):
        label = f"[{cue.who}]\n" if cue.who not in ("", before) else ""
        text = cue.text.replace("-->", "->")  # SRT cannot escape the arrow of its times
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{label}{text}\n")
        before = cue.who
    return "\n".join(blocks)


def vtt(utterances: Iterable[Utterance], words_per_line: int = WORDS_PER_LINE) -> str:
    """Captions as WebVTT has them; each cue says who speaks.

    Raises: SetupError if a line is to have no words.
    """
    blocks = ["WEBVTT\n"]
    for cue in _cues(utterances, words_per_line):
        voice = f"<v {cue.who.title()}>" if cue.who else ""
        text = escape(cue.text, quote=False)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n")
    return "\n".join(blocks)


def _cues(utterances: Iterable[Utterance], words_per_line: int) -> list[_Cue]:
    """All cues in order of time."""
    if words_per_line < 1:
        raise SetupError(f"a line of {words_per_line} words shows nothing; give words_per_line=1 or more")
    said = list(utterances)
    several = len({utterance.channel for utterance in said}) > 1
    cues = [cue for utterance in said for cue in _cues_of(utterance, words_per_line, several)]
    return sorted((cue for cue in cues if cue.text), key=lambda cue: cue.start)


def _cues_of(utterance: Utterance, words_per_line: int, several: bool) -> Iterator[_Cue]:
    channel = utterance.channel if several else None
    if not utterance.words:
        yield _cue(utterance.start, utterance.end, [utterance.transcript], utterance.speaker, channel)
    for words in _lines(utterance.words, words_per_line):
        texts = [word.word if word.punctuated_word is None else word.punctuated_word for word in words]
        yield _cue(words[0].start, words[-1].end, texts, words[0].speaker, channel)


def _lines(words: Iterable[Word], words_per_line: int) -> Iterator[list[Word]]:
    for _, of_one in groupby(words, key=lambda word: word.speaker):
        rest = list(of_one)
        for at in range(0, len(rest), words_per_line):
            yield rest[at : at + words_per_line]


def _cue(start: float, end: float, texts: Sequence[str], speaker: int | None, channel: int | None) -> _Cue:
    begins = _milliseconds(start)
    text = " ".join(" ".join(texts).split())  # an empty line would end the cue
    return _Cue(begins, max(_milliseconds(end), begins + 1), text, speaker, channel)


def _milliseconds(seconds: float) -> int:
    return round(min(max(0.0, seconds), LATEST) * 1000)  # in this order NaN is 0


def _clock(milliseconds: int, point: str) -> str:
    """As in `00:01:05.400`; as many hours as there are."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{rest:03}"

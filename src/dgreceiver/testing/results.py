"""Deepgram's results, made of what was submitted: the same input and options give the same result.

Nothing is recognised or understood here: words are chosen by the digest of the input, insights by rules of thumb.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from .insights import Sentence, feeling, insights, sentences, usage
from .options import Invalid, Options, extra, is_on, last, number, one_of, unreadable, whole
from .payloads import Payload, json_payload
from .recordings import Recording, linked, recording
from .script import ENTITIES, NUMERALS, Spoken, digest_of, spoken, written
from .shapes import MODEL, channel_of, paragraph_of, text_of, utterance_of
from .speech import speak

__all__ = ["Invalid", "Options", "listen", "read", "speak"]

Words = list[dict[str, Any]]  # a sentence, or all of it

# A name is one of these words, or begins with one and a hyphen; a custom model is a UUID.
FAMILIES = ("nova", "enhanced", "base", "whisper", "flux")
USES = ("general", "meeting", "phonecall", "finance", "conversationalai", "voicemail", "video", "medical", "automotive")
SUMMARIES = ("true", "false", "v1", "v2")
FLAGS = ("filler_words", "dictation", "measurements", "profanity_filter", "mip_opt_out")  # checked, of no effect here
DIARIZERS = ("latest", "v1", "v2")
SENTENCES = 2  # to a paragraph, and to a speaker's turn
CERTAIN, DOUBTFUL = 1.0, 0.25  # a search term that was said, and one that was not


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options ask for, checked."""

    punctuated: bool
    numerals: bool
    paragraphs: bool
    utterances: bool
    diarizer: str | None
    multichannel: bool
    multilingual: bool
    sentiment: bool
    entities: bool
    summary: bool
    language: str | None  # as detected
    alternatives: int
    pause: float  # seconds, between utterances


def listen(
    options: Options, *, audio: bytes | None = None, url: str | None = None, request_id: str, created: datetime
) -> Payload:
    """The transcript of a recording, over its real duration if that can be told.

    Raises: Invalid

    Source: https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded
    """
    heard = _heard(options, audio, url)
    wanted = wanted_of(options)
    channels = [_said(heard, channel, wanted) for channel in range(heard.channels if wanted.multichannel else 1)]
    stretches = _stretches(channels[0])
    infos, found = insights(options, stretches)
    results: dict[str, Any] = {"channels": [_channel(lines, options, wanted) for lines in channels]}
    if wanted.utterances:
        results["utterances"] = _utterances(channels, wanted, heard)
    if wanted.summary:
        warnings, found["summary"] = _summary(options, stretches)
        infos |= warnings or {"summary_info": usage(stretches)}
    metadata = _metadata(options, heard, len(channels), request_id, created) | _diarizer(wanted) | infos
    return json_payload("Transcript", {"metadata": metadata, "results": results | found})


def read(
    options: Options, *, text: str | None = None, url: str | None = None, request_id: str, created: datetime
) -> Payload:
    """What is read out of a text, in its own sentences.

    Raises: Invalid

    Source: https://developers.deepgram.com/reference/text-intelligence/analyze-text
    """
    if (text is None) == (url is None):
        raise Invalid(
            "Failed to deserialize JSON payload. Please specify exactly one of `text` or `url` in the JSON body.",
            code="PAYLOAD_ERROR",
        )
    language = _read_language(options)
    found = sentences(text if text is not None else written(sha256((url or "").encode()).digest()))
    infos, results = insights(options, found)
    if one_of(options, "summarize", SUMMARIES) not in (None, "false"):
        results["summary"] = {"text": _first(found)}
        infos["summary_info"] = usage(found)
    metadata = {"request_id": request_id, "created": instant(created), "language": language}
    return json_payload("Analysis", {"metadata": metadata | infos, "results": results})


def _read_language(options: Options) -> str:
    language = last(options, "language")
    if language is None:
        raise unreadable("missing field `language`")
    if not _is_english(language):
        raise Invalid(f"Request specified unsupported language: {language}. Only English is supported.")
    return language


def _is_english(language: str) -> bool:
    return language.casefold().split("-")[0] == "en"


def instant(created: datetime) -> str:
    return created.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _first(found: Sequence[Sentence]) -> str:
    return found[0].text if found else ""


def _heard(options: Options, audio: bytes | None, url: str | None) -> Recording:
    if audio is not None:
        return recording(options, audio)
    if url is not None:
        return linked(url)
    raise Invalid("Bad Request: failed to process audio: corrupt or unsupported data", code="Bad Request")


def wanted_of(options: Options) -> Wanted:
    for flag in FLAGS:
        is_on(options, flag)
    smart = is_on(options, "smart_format")  # punctuates, writes numbers, and makes paragraphs
    paragraphs = is_on(options, "paragraphs") or smart  # which are nothing without punctuation
    return Wanted(
        punctuated=is_on(options, "punctuate") or paragraphs,
        numerals=is_on(options, "numerals") or smart,
        paragraphs=paragraphs,
        utterances=is_on(options, "utterances"),
        diarizer=one_of(options, "diarize_model", DIARIZERS) or ("v1" if is_on(options, "diarize") else None),
        multichannel=is_on(options, "multichannel"),
        multilingual=last(options, "language") == "multi",
        sentiment=is_on(options, "sentiment"),
        entities=is_on(options, "detect_entities"),
        summary=one_of(options, "summarize", SUMMARIES) not in (None, "false"),
        language=_detected(options),
        alternatives=whole(options, "alternatives") or 1,
        pause=number(options, "utt_split", 0.8),
    )


def _detected(options: Options) -> str | None:
    """The language that is found: of several to choose from the first."""
    said = options.get("detect_language", ())
    if said and said[0] not in ("true", "false") and all(_is_tag(tag) for tag in said):
        return said[0]
    return "en" if is_on(options, "detect_language") else None


def _is_tag(language: str) -> bool:
    return bool(re.fullmatch(r"[a-z]{2}(-\w+)?", language))


def _metadata(options: Options, heard: Recording, channels: int, request_id: str, created: datetime) -> dict[str, Any]:
    model_id, model = model_of(last(options, "model") or "base")
    pairs, tags = extra(options), options.get("tag", ())
    return {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": heard.digest.hex(),
        "created": instant(created),
        "duration": heard.duration,
        "channels": channels,
        "models": [model_id],
        "model_info": {model_id: model},
        **({"tags": list(tags)} if tags else {}),
        **({"extra": pairs} if pairs else {}),
    }


def model_of(name: str) -> tuple[str, dict[str, str]]:
    """The id and the description of a model; one that has no family is of the oldest.

    Raises: Invalid if there is none of that name.
    """
    words = name.split("-")
    if words[0] not in (*FAMILIES, *USES) and not _is_uuid(name):
        raise Invalid("Bad Request: No such model/language/tier combination found.", code="Bad Request")
    family = words[0] if words[0] in FAMILIES else "base"
    arch = "-".join([family, *(word for word in words[1:2] if word.isdigit())])
    use = name.removeprefix(family).removeprefix(arch.removeprefix(family)).strip("-") or "general"
    return str(uuid5(NAMESPACE_URL, name)), {
        "name": f"{use}-{arch}",
        "version": MODEL["version"],
        "arch": arch,
    }


def _is_uuid(name: str) -> bool:
    try:
        return bool(UUID(name))
    except ValueError:
        return False


def _diarizer(wanted: Wanted) -> dict[str, Any]:
    if wanted.diarizer is None:
        return {}
    arch = "v2" if wanted.diarizer == "latest" else wanted.diarizer
    return {"diarize_info": {"model_uuid": str(uuid5(NAMESPACE_URL, arch)), "arch": arch}}


def _said(heard: Recording, channel: int, wanted: Wanted) -> list[Words]:
    """The sentences of a channel."""
    lines = spoken(digest_of(channel, heard.digest), heard.duration)
    return [_line(line, speaker_of(turn), wanted) for turn, line in enumerate(lines)]


def speaker_of(turn: int) -> int:
    """Who says the sentence of this number."""
    return turn // SENTENCES % 2


def _line(line: Sequence[Spoken], speaker: int, wanted: Wanted) -> Words:
    felt = feeling(" ".join(word.token for word in line)) if wanted.sentiment else {}
    return [word_of(word, speaker, wanted) | felt for word in line]


def word_of(said: Spoken, speaker: int, wanted: Wanted) -> dict[str, Any]:
    figure = NUMERALS.get(said.word) if wanted.numerals else None
    word: dict[str, Any] = {
        "word": figure or said.word,
        "start": said.start / 1000,
        "end": said.end / 1000,
        "confidence": said.confidence,
    }
    if wanted.multilingual:
        word["language"] = "en"
    if wanted.diarizer:
        word |= {"speaker": speaker, "speaker_confidence": said.confidence}
    if wanted.punctuated:
        word["punctuated_word"] = said.token.replace(said.word, figure) if figure else said.token
    return word


def _stretches(lines: Iterable[Words]) -> list[Sentence]:
    at, found = 0, []
    for line in lines:
        found.append(Sentence(text_of(line), at, at + len(line) - 1))
        at += len(line)
    return found


def _channel(lines: Sequence[Words], options: Options, wanted: Wanted) -> dict[str, Any]:
    words = [word for line in lines for word in line]
    channel = channel_of(words, _paragraphs(lines) if wanted.paragraphs else None)
    best = channel["alternatives"][0]
    if wanted.multilingual:
        best |= {"languages": ["en"] if words else [], "languages_hinted": list(options.get("language_hint", ()))}
    if wanted.entities:
        best["entities"] = list(_entities(words))
    channel["alternatives"] = [best | _doubt(best, rank) for rank in range(wanted.alternatives)]
    if options.get("search"):
        channel["search"] = [{"query": term, "hits": _hits(term, words)} for term in options["search"]]
    if wanted.language:
        channel |= {"detected_language": wanted.language, "language_confidence": best["confidence"]}
    return channel


def _doubt(best: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """A further alternative is the same words, less surely."""
    return {"confidence": round(best["confidence"] / (1 + rank / 10), 6)}


def _paragraphs(lines: Sequence[Words]) -> dict[str, Any]:
    groups = [lines[at : at + SENTENCES] for at in range(0, len(lines), SENTENCES)]
    texts = (_speaker(group[0][0]) + " ".join(map(text_of, group)) for group in groups)
    return {"transcript": "\n" + "\n\n".join(texts), "paragraphs": [paragraph_of(*group) for group in groups]}


def _speaker(word: Mapping[str, Any]) -> str:
    return f"Speaker {word['speaker']}: " if "speaker" in word else ""


def _entities(words: Words) -> Iterator[dict[str, Any]]:
    figures = {figure: word for word, figure in NUMERALS.items()}
    for place, word in enumerate(words):
        raw: str = figures.get(word["word"]) or word["word"]
        if label := ENTITIES.get(raw):
            where = {"confidence": word["confidence"], "start_word": place, "end_word": place}
            yield {"label": label, "value": word["word"], "raw_value": raw, **where}


def _hits(term: str, words: Words) -> list[dict[str, Any]]:
    """Where a term was said; if it was not, the least unlikely place."""
    sought = term.casefold().split() or [""]
    width = len(sought)
    stretches = [words[at : at + width] for at in range(len(words) - width + 1)]
    hits = [each for each in stretches if [word["word"] for word in each] == sought]
    return [_hit(each, CERTAIN) for each in hits] or [_hit(each, DOUBTFUL) for each in stretches[:1]]


def _hit(words: Words, confidence: float) -> dict[str, Any]:
    snippet = " ".join(word["word"] for word in words)
    return {"confidence": confidence, "start": words[0]["start"], "end": words[-1]["end"], "snippet": snippet}


def _utterances(channels: Sequence[Sequence[Words]], wanted: Wanted, heard: Recording) -> list[dict[str, Any]]:
    """In the order of their beginning, as Deepgram has them, whichever channel they are of."""
    found = [
        utterance_of(words, at, source=heard.digest.hex())
        for at, lines in enumerate(channels)
        for words in _between_pauses([word for line in lines for word in line], wanted.pause)
    ]
    return sorted(found, key=lambda utterance: (utterance["start"], utterance["channel"]))


def _between_pauses(words: Words, pause: float) -> Iterator[Words]:
    breaks = [at for at, (one, other) in enumerate(pairwise(words), 1) if _breaks(one, other, pause)]
    for begin, end in pairwise([0, *breaks, len(words)]):
        if words[begin:end]:
            yield words[begin:end]


def _breaks(one: Mapping[str, Any], other: Mapping[str, Any], pause: float) -> bool:
    return bool(other["start"] - one["end"] >= pause or one.get("speaker") != other.get("speaker"))


def _summary(options: Options, stretches: Sequence[Sentence]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The warning, if there is no summary, and the summary; only English is summarised.

    Source: https://developers.deepgram.com/docs/summarization
    """
    language = _detected(options) or last(options, "language") or "en"
    if _is_english(language) or language == "multi":
        return {}, {"result": "success", "short": _first(stretches)}
    message = "Summarization is not supported for this language."
    warning = {"parameter": "summarize", "type": "unsupported_language", "message": message}
    return {"warnings": [warning]}, {"result": "failure", "short": message}

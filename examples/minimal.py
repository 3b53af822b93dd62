"""The five lines: print what was said."""

from dgreceiver import BasicAuth, Receiver, Transcript

receiver = Receiver(auth=BasicAuth("deepgram", "for-development-only"))


@receiver.on(Transcript)
async def save(transcript: Transcript) -> None:
    print(transcript.request_id, transcript.text)

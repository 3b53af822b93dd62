"""A FastAPI app that has recordings transcribed, and keeps the transcripts in a database of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlmodel import Field, Session, SQLModel, col, create_engine, select, update

from dgreceiver import CallbackMiddleware, Delivery, Receiver, SignedAuth, Transcript

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DATA", ".")).resolve()
DEEPGRAM_URL = os.environ.get("DEEPGRAM_URL", "http://127.0.0.1:8090")  # the emulator
LOCAL = DEEPGRAM_URL != "https://api.deepgram.com"  # so what it calls back may be local too
if LOCAL:  # for development only: Deepgram itself needs real ones
    os.environ.setdefault("CALLBACK_KEY", "for-development-only-and-not-a-secret")
    os.environ.setdefault("DEEPGRAM_API_KEY", "any")

logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it writes the callback URL, which is a secret

engine = create_engine(f"sqlite:///{DATA / 'recordings.db'}")
pages = Jinja2Templates(HERE / "templates")
receiver = Receiver(
    auth=SignedAuth(os.environ["CALLBACK_KEY"]),
    inbox=f"sqlite:///{DATA / 'inbox.db'}",
    public_url=os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000/deepgram"),
)
deepgram = DeepgramClient(
    api_key=os.environ["DEEPGRAM_API_KEY"],
    environment=DeepgramClientEnvironment(
        base=DEEPGRAM_URL, agent_rest=DEEPGRAM_URL, production="wss://unused", agent="wss://unused"
    ),
)


class Recording(SQLModel, table=True):
    """A recording, and what was said in it once Deepgram has called back."""

    id: int | None = Field(default=None, primary_key=True)
    name: str
    request_id: str | None = Field(default=None, unique=True)
    text: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    SQLModel.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(CallbackMiddleware, receiver=receiver, path="/deepgram")


@app.get("/")
def index(request: Request) -> HTMLResponse:
    with Session(engine) as session:
        recordings = session.exec(select(Recording).order_by(col(Recording.id).desc())).all()
    return pages.TemplateResponse(request, "index.html", {"recordings": recordings})


@app.post("/")
def submit(audio: UploadFile) -> RedirectResponse:
    recording = Recording(name=audio.filename or "without a name")
    with Session(engine) as session:
        session.add(recording)
        session.commit()  # before Deepgram knows of it: the callback may be faster than this view
        session.refresh(recording)
    deepgram.listen.v1.media.transcribe_file(
        request=audio.file.read(),
        model="nova-3",
        smart_format=True,
        callback=receiver.callback_url({"recording": recording.id}, local=LOCAL),
    )
    return RedirectResponse("/", 303)


@receiver.on(Transcript)
def save(transcript: Transcript, delivery: Delivery) -> None:
    """Keep what was said. It may run twice, and then writes the same into the same row."""
    own = update(Recording).where(col(Recording.id) == delivery.context["recording"])
    with Session(engine) as session:
        session.exec(own.values(request_id=transcript.request_id, text=transcript.text))
        session.commit()

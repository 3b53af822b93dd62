"""A Flask app that has recordings transcribed, and keeps the transcripts in a database of its own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from flask import Flask, redirect, render_template, request, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from werkzeug.wrappers import Response

from dgreceiver import Delivery, Receiver, SignedAuth, Transcript, WSGICallbackMiddleware

DATA = Path(os.environ.get("DATA", ".")).resolve()
DEEPGRAM_URL = os.environ.get("DEEPGRAM_URL", "http://127.0.0.1:8090")  # the emulator
LOCAL = DEEPGRAM_URL != "https://api.deepgram.com"  # so what it calls back may be local too
if LOCAL:  # for development only: Deepgram itself needs real ones
    os.environ.setdefault("CALLBACK_KEY", "for-development-only-and-not-a-secret")
    os.environ.setdefault("DEEPGRAM_API_KEY", "any")

logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it writes the callback URL, which is a secret


class Base(DeclarativeBase):
    """What the tables have in common."""


app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{DATA / 'recordings.db'}"
db = SQLAlchemy(app, model_class=Base)

receiver = Receiver(
    auth=SignedAuth(os.environ["CALLBACK_KEY"]),
    inbox=f"sqlite:///{DATA / 'inbox.db'}",
    public_url=os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000/deepgram"),
)
app.wsgi_app = WSGICallbackMiddleware(app.wsgi_app, receiver=receiver, path="/deepgram")  # type: ignore[method-assign]

deepgram = DeepgramClient(
    api_key=os.environ["DEEPGRAM_API_KEY"],
    environment=DeepgramClientEnvironment(
        base=DEEPGRAM_URL, agent_rest=DEEPGRAM_URL, production="wss://unused", agent="wss://unused"
    ),
)


class Recording(db.Model):  # type: ignore[name-defined, misc] # Flask-SQLAlchemy makes this class when it runs
    """A recording, and what was said in it once Deepgram has called back."""

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str]
    request_id: Mapped[str | None] = mapped_column(unique=True)
    text: Mapped[str | None]


@app.cli.command("init-db")
def init_db() -> None:
    """Make the tables that are missing."""
    db.create_all()


@app.get("/")
def index() -> str:
    recordings = db.session.scalars(select(Recording).order_by(Recording.id.desc()))
    return render_template("index.html", recordings=recordings)


@app.post("/")
def submit() -> Response:
    recording = Recording(url=request.form["url"])
    db.session.add(recording)
    db.session.commit()  # before Deepgram knows of it: the callback may be faster than this view
    deepgram.listen.v1.media.transcribe_url(
        url=recording.url,
        model="nova-3",
        smart_format=True,
        callback=receiver.callback_url({"recording": recording.id}, local=LOCAL),
    )
    return redirect(url_for("index"), 303)


@receiver.on(Transcript)
def save(transcript: Transcript, delivery: Delivery) -> None:
    """Keep what was said. It may run twice, and then writes the same into the same row."""
    own = update(Recording).where(Recording.id == delivery.context["recording"])
    with app.app_context():
        db.session.execute(own.values(request_id=transcript.request_id, text=transcript.text))
        db.session.commit()

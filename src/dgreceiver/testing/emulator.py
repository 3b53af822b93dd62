"""Deepgram's side of the wire: what is submitted is called back, and goes wrong as it is told to.

It is no recogniser: results are made up from what comes in, the same for the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from ..errors import SetupError
from . import results
from .clock import Clock, SteppedClock
from .delivery import Deliveries, Timeouts
from .faults import Plan, chooser, fault_named
from .ids import new_request_id
from .live import LEFT, Back, Frames, Gone, Outlet, Posts, Stream, connect
from .payloads import Payload
from .record import Record, Refusal, Submission
from .results import Invalid, Options
from .submissions import Denied, Wish, check_key, denied, invalid, read_audio, read_json, read_wish
from .talk import Talk
from .target import LIVE, Target

KEY_ID = "5dd7a93e-29a6-4b5a-9f6c-3d1c0f1e7a11"  # of every key, where none are listed
HOST = "127.0.0.1"
FINISHED, KILLED = 1000, 1011  # how a live stream is closed; of the second Deepgram tells nothing

T = TypeVar("T")
Maker = Callable[[Request, Options, str, datetime], Awaitable[Payload]]


class Emulator:
    """Deepgram's API, as far as it calls back: an ASGI app.

    `keys` are the API keys that are taken, with the identifier of each; None takes any, with `key_id`. `dg_token`
    sends the identifier with each callback. `faults` says what goes wrong with which submission, unless that says so
    itself. `strict` refuses callback hosts that only this network knows, as Deepgram would. A live message that is
    posted is repeated `live_retries` times if it is not acknowledged.

    Raises: SetupError for a fault that there is not.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, str] | None = None,
        key_id: str = KEY_ID,
        dg_token: bool = False,
        faults: Plan = None,
        clock: Clock | None = None,
        strict: bool = False,
        timeouts: Timeouts = Timeouts(),
        in_flight: int = 100,
        live_retries: int = 0,
    ) -> None:
        if isinstance(faults, str):
            fault_named(faults)
        self.clock = clock or Clock()
        self.record = Record()
        self._keys, self._key_id, self._dg_token = keys, key_id, dg_token
        self._fault_of = chooser(faults)
        self._strict, self._live_retries, self._timeouts = strict, live_retries, timeouts
        self._deliveries = Deliveries(self.clock, timeouts, in_flight)
        self._portal: BlockingPortal | None = None
        self._app = Starlette(
            routes=self._routes(),
            lifespan=self._lifespan,
            exception_handlers={Denied: self._deny, Invalid: self._deny},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    # --- serving

    def serve(self, *, host: str = HOST, port: int = 0) -> AbstractAsyncContextManager[str]:
        """The address of this emulator while it is served from the loop that runs; port 0 is any that is free.

        Raises: SetupError if the address cannot be listened on.
        """
        from .serving import served

        return served(self, host, port)

    @contextmanager
    def running(self, *, host: str = HOST, port: int = 0) -> Iterator[str]:
        """The address of this emulator while it is served from a thread of its own, for programs without a loop.

        Raises: SetupError if the address cannot be listened on.
        """
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self.serve(host=host, port=port)) as url,
        ):
            self._portal = portal
            try:
                yield url
            finally:
                self._portal = None

    def wait(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call something in the thread of `running()` and wait for it: `wait(emulator.idle)`.

        Raises: SetupError if it does not run.
        """
        if self._portal is None:
            raise SetupError("wait() is for an emulator that runs in a thread; write: with emulator.running() as url")
        return self._portal.call(call)

    async def idle(self) -> None:
        """Wait until every callback was acknowledged or given up."""
        await self.clock.idle()

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass on a SteppedClock, and all that was to happen in them.

        Raises: SetupError on a clock that moves by itself.
        """
        if not isinstance(self.clock, SteppedClock):
            raise SetupError("advance() is for a clock that stands still; write Emulator(clock=SteppedClock())")
        await self.clock.advance(seconds)

    # --- what is asked for

    def _routes(self) -> list[BaseRoute]:
        makers: dict[str, Maker] = {
            "/v1/listen": _listen,
            "/v1/read": _read,
            "/v1/speak": partial(_speak, version="v1"),
            "/v2/speak": partial(_speak, version="v2"),
        }
        submissions = [Route(path, partial(self._submit, make), methods=["POST"]) for path, make in makers.items()]
        told = Route("/v1/projects/{project}/requests/{request_id}", self._tell, methods=["GET"])
        return [*submissions, WebSocketRoute("/v1/listen", self._stream), told]

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.clock.stop()

    async def _submit(self, make: Maker, request: Request) -> Response:
        """Answer with the result itself, or with the id under which it will be called back."""
        key_id = check_key(request, self._keys, self._key_id)
        wish = read_wish(request, strict=self._strict)
        path, created, callback = request.url.path, self.clock.now(), wish.callback
        request_id = new_request_id(created)
        payload = await make(request, wish.options, request_id, created)
        submission = self._take(path, wish, request_id, created, payload.kind)
        if callback is None:
            return Response(payload.body, headers=dict(payload.headers))
        self._deliveries.begin(submission, callback, self._token(key_id), payload)
        return JSONResponse({"request_id": request_id})

    def _take(self, path: str, wish: Wish, request_id: str, created: datetime, kind: str) -> Submission:
        fault = (wish.fault or self._fault_of(path)) if wish.callback else None
        shown = wish.callback.shown if wish.callback else None
        submission = Submission(request_id, path, created, kind, wish.method, shown, fault)
        self.record.submissions.append(submission)
        return submission

    def _token(self, key_id: str) -> dict[str, str]:
        return {"dg-token": key_id} if self._dg_token else {}

    async def _stream(self, socket: WebSocket) -> None:
        """Take a live stream, and let it go on until its end."""
        key_id = check_key(socket, self._keys, self._key_id)
        wish = read_wish(socket, strict=self._strict, schemes=LIVE)
        created = self.clock.now()
        request_id = new_request_id(created)
        talk = Talk(wish.options, request_id=request_id, created=created)
        submission = self._take(socket.url.path, wish, request_id, created, "LiveResult")
        await socket.accept(headers=[(b"dg-request-id", request_id.encode())])
        code = FINISHED
        try:
            outlet = await self._outlet(socket, submission, wish.callback, self._token(key_id))
            fault = fault_named(submission.fault)
            await Stream(socket, talk, outlet, self.clock, request_id=request_id, fault=fault).run()
        except Gone as error:
            code = KILLED
            self.record.refusals.append(Refusal(self.clock.now(), socket.url.path, code, str(error)))
        with suppress(*LEFT):
            await socket.close(code)

    async def _outlet(
        self, socket: WebSocket, submission: Submission, callback: Target | None, headers: dict[str, str]
    ) -> Outlet:
        if callback is None:
            return Back(socket)
        if callback.is_socket:
            within = self.clock.patience(self._timeouts.connect)
            return Frames(await connect(callback, headers, within=within), submission, self.clock)
        return Posts(self._deliveries, submission, callback, headers, self._live_retries)

    async def _tell(self, request: Request) -> Response:
        """What became of a request."""
        key_id = check_key(request, self._keys, self._key_id)
        submission = self.record.of(request.path_params["request_id"])
        if submission is None:
            raise denied(404, "REQUEST_NOT_FOUND", "Request not found.")
        told = {
            "request_id": submission.request_id,
            "project_uuid": request.path_params["project"],
            "created": submission.created.isoformat(),
            "path": submission.path,
            "api_key_id": key_id,
            "code": 200,
            **({"callback": submission.outcome()} if submission.callback else {}),
        }
        return JSONResponse({"request": told})

    async def _deny(self, request: Any, error: Any) -> Any:
        """Answer a Denied, or an Invalid, in the documented shape; a WebSocket is not accepted."""
        no: Denied = invalid(error) if isinstance(error, Invalid) else error
        at = self.clock.now()
        self.record.refusals.append(Refusal(at, request.url.path, no.status, str(no)))
        response = JSONResponse({**no.content, "request_id": new_request_id(at)}, no.status)
        if not isinstance(request, WebSocket):
            return response
        await request.send_denial_response(response)
        return None


async def _listen(request: Request, options: Options, request_id: str, created: datetime) -> Payload:
    return results.listen(options, **await read_audio(request), request_id=request_id, created=created)


async def _read(request: Request, options: Options, request_id: str, created: datetime) -> Payload:
    found = await read_json(request, "text", "url")
    return results.read(options, **found, request_id=request_id, created=created)


async def _speak(
    request: Request, options: Options, request_id: str, _: datetime, *, version: Literal["v1", "v2"]
) -> Payload:
    found = await read_json(request, "text")
    return results.speak(options, **found, version=version, request_id=request_id)

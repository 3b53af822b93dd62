"""Which of the user's functions wants which event."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from inspect import Parameter
from types import UnionType
from typing import Any, Generic, Never, Protocol, TypeAlias, TypeGuard, TypeVar, cast, get_args, overload

from .core import events
from .core.events import Event, Unknown
from .core.retry import seconds
from .errors import SetupError
from .inbox.contract import Delivery

E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
Function = TypeVar("Function", bound=Callable[..., object])

Takes: TypeAlias = Callable[[E1], object] | Callable[[E1, Delivery], object]
Duration: TypeAlias = timedelta | float
EventTypes: TypeAlias = tuple[type[Event], ...]

KINDS = tuple(  # all names that a callback's kind may have
    name for name, kind in vars(events).items() if isinstance(kind, type) and issubclass(kind, Event) and name[0] != "_"
)
BY_POSITION = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL}
VARIADIC = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


@dataclass(frozen=True, slots=True)
class Handler:
    """One function of the user's, and what it wants."""

    name: str  # what the inbox remembers it by
    event_types: EventTypes
    call: Callable[..., Any]
    wants_delivery: bool
    is_async: bool
    timeout: float  # seconds

    def arguments(self, event: Event, delivery: Delivery) -> tuple[Any, ...]:
        return (event, delivery) if self.wants_delivery else (event,)


class Keeps(Protocol):
    """Gives back what it takes, as the type it is."""

    def __call__(self, call: Function, /) -> Function: ...


class Checks(Protocol[T_contra]):
    """Takes what fits, and adds no type of its own to what comes back."""

    def __call__(self, call: T_contra, /) -> Never: ...


class Registers(Generic[E_contra]):
    """What `on(...)` returns, as type checkers see it: a function of another event is refused, and none changes type.

    A call of a union has to suit all its members and gives the union of what they return, so the one member keeps
    the exact type and the other checks it. An attribute, because mypy takes a union itself for an untyped decorator.
    """

    __call__: Keeps | Checks[Takes[E_contra]]


class Handlers:
    """The handlers of one receiver, in the order of their registration."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._wanting: dict[type[Event], tuple[Handler, ...]] = {}

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, call: Callable[..., Any], event_types: EventTypes, *, name: str | None, timeout: float) -> Handler:
        """Register a function.

        Raises: SetupError if it can be no handler, or if its name is taken.
        """
        _refuse_what_cannot_handle(call)
        handler = Handler(
            name=name or _name(call),
            event_types=event_types,
            call=call,
            wants_delivery=_wants_delivery(call),
            is_async=inspect.iscoroutinefunction(_body(call)),
            timeout=timeout,
        )
        self._refuse_a_second(handler)
        self._handlers[handler.name] = handler
        self._wanting.clear()
        return handler

    def wanting(self, event: Event) -> tuple[Handler, ...]:
        """Those to run for an event: a handler for a class takes its subclasses."""
        return self._wanting_type(type(event))

    def of_kind(self, kind: str) -> tuple[Handler, ...]:
        """Those that want a callback of that kind, if it parses as what it seems to be."""
        return self._wanting_type(_event_type(kind))

    def may_want(self, kind: str) -> bool:
        """Whether a callback of that kind could find a handler; parsing may yet make it `Unknown`."""
        return bool(self.of_kind(kind) or self._wanting_type(Unknown))

    def kinds_of(self, names: Collection[str]) -> list[str]:
        """The kinds that one of these handlers wants."""
        return [kind for kind in KINDS if any(handler.name in names for handler in self.of_kind(kind))]

    def _wanting_type(self, event_type: type[Event]) -> tuple[Handler, ...]:
        found = self._wanting.get(event_type)
        if found is None:
            found = tuple(h for h in self._handlers.values() if issubclass(event_type, h.event_types))
            self._wanting[event_type] = found
        return found

    def _refuse_a_second(self, handler: Handler) -> None:
        first = self._handlers.get(handler.name)
        if first is None:
            return
        new, all_ = handler.event_types, dict.fromkeys(first.event_types + handler.event_types)
        raise SetupError(
            f'two handlers are named {handler.name}; name this one: on({_listed(new)}, name="…"), '
            f"or let the first take all: on({_listed(all_)})"
        )


class TakesHandlers:
    """What a receiver is to the one who writes handlers: it has `on`."""

    def __init__(self) -> None:
        self._handlers = Handlers()

    @overload
    def on(self, one: type[E1], /, *, name: str | None = None, timeout: Duration = 600.0) -> Registers[E1]: ...
    @overload
    def on(
        self, one: type[E1], two: type[E2], /, *, name: str | None = None, timeout: Duration = 600.0
    ) -> Registers[E1 | E2]: ...
    @overload
    def on(
        self,
        one: type[E1],
        two: type[E2],
        three: type[E3],
        /,
        *,
        name: str | None = None,
        timeout: Duration = 600.0,
    ) -> Registers[E1 | E2 | E3]: ...
    @overload
    def on(
        self,
        one: type[E1],
        two: type[E2],
        three: type[E3],
        four: type[E4],
        /,
        *,
        name: str | None = None,
        timeout: Duration = 600.0,
    ) -> Registers[E1 | E2 | E3 | E4]: ...
    @overload
    def on(
        self,
        one: type[Event],
        two: type[Event],
        three: type[Event],
        four: type[Event],
        five: type[Event],
        /,
        *more: type[Event],
        name: str | None = None,
        timeout: Duration = 600.0,
    ) -> Registers[Event]: ...
    def on(self, *event_types: Any, name: str | None = None, timeout: Duration = 600.0) -> Registers[Any]:
        """Register the function below as the handler of these events and of their subclasses.

        It takes `(event)`, or `(event, delivery)` if it has a second parameter without a default, and comes back
        unchanged. `async def` runs on the event loop, `def` in a thread. `on(Event)` takes everything.

        `name` is what the inbox remembers it by (otherwise the name of the function): renamed, it is a new handler
        that has not yet run for what waits. Past its `timeout` a run is cancelled and counts as failed.

        Units: a float is seconds.

        Raises: SetupError if the function or an argument cannot work; the message says what to write.
        """
        _refuse_what_never_comes(event_types)
        limit = _time_to_run(timeout)

        def register(call: Callable[..., Any]) -> Callable[..., Any]:
            self._handlers.add(call, event_types, name=name, timeout=limit)
            return call

        return cast("Registers[Any]", register)


def paste(kind: str) -> str:
    """A handler for events of that kind, ready to be filled in."""
    event = _event_type(kind).__name__
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", event).lower()
    return f"@receiver.on({event})\nasync def on_{words}(event: {event}) -> None: ..."


@lru_cache(maxsize=64)
def _event_type(kind: str) -> type[Event]:
    """The class of that name; of a kind from another release, what parsing makes of it."""
    found = getattr(events, kind, None)
    return found if _is_event_type(found) else Unknown


def _is_event_type(value: object) -> TypeGuard[type[Event]]:
    return isinstance(value, type) and issubclass(value, Event)


def _refuse_what_never_comes(event_types: Sequence[object]) -> None:
    if not event_types:
        raise SetupError("on() names no event; write on(Transcript), or on(Event) for everything")
    for value in event_types:
        if not _is_event_type(value):
            raise SetupError(_why_no_event(value))
        known = next(parent for parent in value.__mro__ if getattr(events, parent.__name__, None) is parent)
        if known is not value:
            raise SetupError(f"no callback becomes {value.__name__}, a class of yours; write on({known.__name__})")


def _why_no_event(value: object) -> str:
    if isinstance(value, UnionType):
        return f"on() takes classes one by one; write on({_listed(get_args(value))})"
    if inspect.isroutine(value):
        return f"on was used without parentheses; write on(Transcript) above {_shown(value)}, with the event it takes"
    what = value if isinstance(value, type) else type(value)
    return f"on() takes classes of events, such as Transcript, not {what.__name__}"


def _time_to_run(timeout: Duration) -> float:
    limit = seconds(timeout, "timeout")
    if not limit:
        raise SetupError("timeout is 0; a handler needs time to run")
    return limit


def _refuse_what_cannot_handle(call: object) -> None:
    if isinstance(call, type):
        raise SetupError(f"{call.__name__} is a class; register an instance: on(…)({call.__name__}(…))")
    if not callable(call):
        raise SetupError(f"a handler is a function or an object with __call__, not {type(call).__name__}")
    body = _body(call)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise SetupError(f"{_shown(call)} is a generator, which nothing would run through; a handler has no yield")


def _wants_delivery(call: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(call).parameters.values()
    except ValueError:  # `deque.append` and some others written in C do not say; they get the event
        return False
    required = [p for p in parameters if p.default is p.empty and p.kind not in VARIADIC]
    by_keyword = any(p.kind is p.KEYWORD_ONLY for p in required)
    takes_event = any(p.kind in BY_POSITION for p in parameters)
    if by_keyword or not takes_event or len(required) > 2:
        raise SetupError(_why_wrong_arity(call, required))
    return len(required) == 2


def _why_wrong_arity(call: Callable[..., Any], required: Sequence[Parameter]) -> str:
    names = [f"{p.name}=" if p.kind is p.KEYWORD_ONLY else p.name for p in required]
    count = {0: "no argument", 1: "1 argument"}.get(len(names), f"{len(names)} arguments")
    advice = ": give the others defaults or use functools.partial" if names else ""
    return f"{_shown(call)}({', '.join(names)}) takes {count}; a handler takes (event) or (event, delivery){advice}"


def _function(call: Callable[..., Any]) -> Callable[..., Any]:
    """What a partial, or a partial of a partial, calls."""
    while isinstance(call, partial):
        call = call.func
    return call


def _body(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs when `call` is called: of an object, its class's `__call__`."""
    function = _function(call)
    return function if inspect.isroutine(function) else type(function).__call__


def _name(call: Callable[..., Any]) -> str:
    function = _function(call)
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _shown(call: Callable[..., Any]) -> str:
    """A name as its author wrote it: `save`, not `app.<locals>.save`."""
    return _name(call).rpartition("<locals>.")[2]


def _listed(event_types: Iterable[type]) -> str:
    return ", ".join(event_type.__name__ for event_type in event_types)

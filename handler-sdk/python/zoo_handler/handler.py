"""The API for new handlers: requests and responses as objects, one class to derive from.

    from zoo_handler import Handler, Response

    class Upper(Handler):
        def predict_one(self, request):
            return request.text.upper()

``docs/handlers.md`` shows the rest. Handlers written for TorchServe don't need this module.
"""

import json
from time import monotonic
from typing import Any, AsyncIterator, Awaitable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Union

from zoo_handler.context import Context
from zoo_handler.errors import AnswerError, PredictionException
from zoo_handler.item import Item

# Where a client's one body is: TorchServe's clients name it "data" in forms, the server names it "body"
# otherwise.
_MAIN_PARTS = ("body", "data")


class Part(NamedTuple):
    """One named part of a request: a form field, an uploaded file, or the whole body."""

    body: bytearray
    content_type: str


class Request:
    """One request of a batch. Nothing of it is decoded before it is asked for."""

    __slots__ = ("_item", "_values", "_context", "_index", "_deadline")

    def __init__(self, item: Item, values: Dict[str, bytearray], context: Context, index: int) -> None:
        self._item = item
        self._values = values
        self._context = context
        self._index = index
        self._deadline = monotonic() + item.timeout_ms / 1000 if item.timeout_ms else None

    @property
    def body(self) -> bytearray:
        """The bytes of the request. Of a form: its field ``body`` or ``data``, or its only field."""
        return self._values[self._main()] if self._values else bytearray()

    @property
    def content_type(self) -> str:
        """What the client said that ``body`` is, or an empty string."""
        return self._item.content_type(self._main()) if self._values else ""

    @property
    def text(self) -> str:
        """``body`` as text. What isn't UTF-8 fails this request with status 400."""
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise self.error("The body is not UTF-8: {}".format(cause)) from None

    def json(self) -> Any:
        """``body`` as JSON, whatever its content type. What isn't JSON fails this request with status 400."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as cause:
            raise self.error("The body is not JSON: {}".format(cause)) from None

    @property
    def parts(self) -> Dict[str, Part]:
        """All parts by name."""
        return {name: Part(value, self._item.content_type(name)) for name, value in self._values.items()}

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the request; names in any case."""
        return self._item.headers

    @property
    def id(self) -> str:
        """The request id that the client sees, too."""
        return self._item.request_id

    @property
    def path(self) -> str:
        """What followed the model in the URL."""
        return self._item.url_path

    @property
    def explain(self) -> bool:
        """Whether the client asks for an explanation rather than for a prediction."""
        return bool(self._item.flags & 1)

    @property
    def remaining(self) -> Optional[float]:
        """Seconds until the client gives up, or None if it waits for as long as it takes."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def is_cancelled(self) -> bool:
        """Whether the client has left. Cheap enough to ask in a loop."""
        return self._context.is_cancelled(self._index)

    def error(self, message: str, status: int = 400) -> "RequestError":
        """An error of this request alone, to be raised or returned."""
        return RequestError(self, message, status)

    def _main(self) -> str:
        for name in _MAIN_PARTS:
            if name in self._values:
                return name
        if len(self._values) == 1:
            return next(iter(self._values))
        text = "The request has no part named body or data. It has: {}"
        raise self.error(text.format(", ".join(self._values)))

    def __repr__(self) -> str:
        return "<Request {} with {}>".format(self.id, ", ".join(self._values) or "no body")


class RequestError(PredictionException):
    """An error that one request is to blame for: the others of its batch go on without it."""

    def __init__(self, request: Request, message: str, status: int = 400) -> None:
        super().__init__(message, status)
        self.request = request

    def __reduce__(self):
        return (PredictionException, (self.message, self.error_code))


class Response:
    """An answer with a status, headers or a content type. A plain value is an answer, too."""

    __slots__ = ("body", "status", "reason", "headers")

    def __init__(
        self,
        body: "Answer" = b"",
        status: int = 200,
        *,
        content_type: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        reason: str = "",
    ) -> None:
        self.body = body
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
        if content_type is not None:
            self.headers["content-type"] = content_type


# bytes as they are, str as UTF-8, a torch.Tensor as torch.save writes it, JSON for the rest; an exception
# fails its own request; an iterator streams.
Answer = Union[bytes, bytearray, str, Dict[str, Any], List[Any], Response, BaseException, Iterator[Any], Any]
Answers = Union[List[Answer], Iterator[List[Any]], Awaitable[List[Answer]], AsyncIterator[List[Any]]]


class Handler:
    """Derive from this and write ``predict_one`` or ``predict``.

    One object of it serves one model in one process.

    Any of the methods may be ``async def``; then several batches are open at a time.
    """

    # An asynchronous handler may say how many batches it wants to have open at most.
    concurrency: Optional[int] = None

    # What the model takes and gives, for the tensor protocols: {"inputs": [...], "outputs": [...]}.
    signature: Optional[Dict[str, Any]] = None

    def load(self, context: Context) -> Optional[Awaitable[None]]:
        """Makes the model ready. Called once."""

    def predict_one(self, request: Request) -> Answer:
        """The answer to one request.

        What it raises fails this request only; what it yields are the chunks of a stream.
        """
        raise NotImplementedError("{} has neither predict nor predict_one".format(type(self).__name__))

    def predict(self, batch: List[Request]) -> Answers:
        """One answer for each request, in the same order, for models that work on a whole batch at a time.

        An exception in the place of an answer fails that request. A ``RequestError``, which
        ``request.json()`` and the like raise, fails its own request too, and ``predict`` is called again with
        the others. Any other exception fails all.
        """
        raise NotImplementedError

    def describe(self) -> Any:
        """What a client reads that asks for the model's own description; None if there is nothing to say."""
        return None


def adapt(instance, context, is_async):
    """The entry point of an object of a class derived from Handler, as the loader hands it to the worker."""
    from zoo_handler.loader import Handler as Loaded

    one_by_one = type(instance).predict is Handler.predict
    predict = instance.predict_one if one_by_one else instance.predict
    asynchronous = is_async(predict) or is_async(instance.load)
    if not asynchronous:
        call = _each if one_by_one else _whole
    elif one_by_one:
        call = _each_async
    else:
        call = _whole_async

    def handle(data, context):
        items = context._items
        if items[0].describe:
            return [instance.describe()]
        batch = [
            Request(item, values, context, index) for index, (item, values) in enumerate(zip(items, data))
        ]
        return call(predict, batch, context)

    handler = Loaded(handle, lambda: instance.load(context), asynchronous)
    handler.decode = False
    handler.concurrency = instance.concurrency
    handler.signature = instance.signature
    context._marks_streams = False
    return handler


def _each(predict, batch, context):
    answers = []
    for request in batch:
        try:
            answers.append(_answer(predict(request), context, request._index))
        except Exception as cause:
            answers.append(cause)
    return answers


async def _each_async(predict, batch, context):
    import asyncio

    async def one(request):
        try:
            return _answer(await _settled(predict(request)), context, request._index)
        except Exception as cause:
            return cause

    return list(await asyncio.gather(*[one(request) for request in batch]))


def _whole(predict, batch, context):
    failed = {}
    while len(failed) < len(batch):
        try:
            return _merged(predict(_rest(batch, failed)), batch, failed, context)
        except RequestError as cause:
            _blame(cause, failed)
    return [failed[index] for index in range(len(batch))]


async def _whole_async(predict, batch, context):
    failed = {}
    while len(failed) < len(batch):
        try:
            return _merged(await _settled(predict(_rest(batch, failed))), batch, failed, context)
        except RequestError as cause:
            _blame(cause, failed)
    return [failed[index] for index in range(len(batch))]


async def _settled(value):
    return await value if hasattr(value, "__await__") else value


def _rest(batch, failed):
    return [request for request in batch if request._index not in failed]


def _blame(cause, failed):
    """Notes whose fault it was.

    The same request twice is a handler that doesn't look at what it gets: all fail.
    """
    if cause.request._index in failed:
        raise PredictionException(cause.message, cause.error_code) from cause
    failed[cause.request._index] = cause


def _merged(answers, batch, failed, context):
    """The answers of ``predict`` with those of the requests that failed before."""
    if not isinstance(answers, list):
        return answers  # a generator of lists, or what the worker will complain about
    rest = _rest(batch, failed)
    if len(answers) != len(rest):
        raise AnswerError(503, "number of batch response mismatched")
    merged = dict(failed)
    for request, answer in zip(rest, answers):
        merged[request._index] = _answer(answer, context, request._index)
    return [merged[index] for index in range(len(batch))]


def _answer(answer, context, index):
    """The body of an answer; the rest of a Response goes into the context."""
    if not isinstance(answer, Response):
        return answer
    processor = context.request_processor[index]
    if answer.status != 200 or answer.reason:
        processor.report_status(answer.status, answer.reason)
    for name, value in answer.headers.items():
        processor.add_response_property(name, value)
    return answer.body

"""What handlers see of the worker and of the current batch: TorchServe's Context and RequestProcessor.

One Context lives as long as the worker. What a handler doesn't ask for isn't made: header maps, request
processors, request ids and the metrics cache come into being when they are first used.
"""

import os
from copy import copy as shallow_copy

_SEQUENCE_KEYS = {
    "sequence_id": ("TS_HEADER_KEY_SEQUENCE_ID", "ts_request_sequence_id"),
    "sequence_start": ("TS_HEADER_KEY_SEQUENCE_START", "ts_request_sequence_start"),
    "sequence_end": ("TS_HEADER_KEY_SEQUENCE_END", "ts_request_sequence_end"),
}


class RequestProcessor:
    """The headers of one request, and the status and headers of its answer."""

    def __init__(self, request_header):
        self._status_code = 200
        self._reason_phrase = None
        self._response_header = {}
        self._request_header = request_header

    def get_request_property(self, key):
        """One request header, or None."""
        return self._request_header.get(key)

    def get_request_properties(self):
        """All request headers."""
        return self._request_header

    def report_status(self, code, reason_phrase=None):
        """Sets the status of the answer."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self):
        """The status code of the answer."""
        return self._status_code

    def get_response_status_phrase(self):
        """The reason phrase of the answer, or None."""
        return self._reason_phrase

    def add_response_property(self, key, value):
        """Sets one header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self):
        """The headers of the answer."""
        return self._response_header

    def get_response_header(self, key):
        """One header of the answer, or None."""
        return self._response_header.get(key)


class ItemProcessor(RequestProcessor):
    """The RequestProcessor of an item on the link, whose headers are decoded when they are first read."""

    def __init__(self, item):
        self._item = item
        self._status_code = 200
        self._reason_phrase = None
        self._response_header = {}

    @property
    def _request_header(self):
        return self._item.headers


class Context:
    """The model, the machine, and the batch that is being handled."""

    def __init__(
        self,
        model_name,
        model_dir,
        manifest,
        batch_size,
        gpu,
        mms_version,
        limit_max_image_pixels=True,
        metrics=None,
        model_yaml_config=None,
    ):
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config = {} if model_yaml_config is None else model_yaml_config
        self._system_properties = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.stopping_criteria = None
        self.cl_socket = None
        self._metrics = metrics
        self._declared_metrics = None
        self._request_ids = None
        self._request_processor = None
        self._items = ()
        self._inbox = None  # who knows which items are cancelled
        self._streamer = None  # who sends intermediate answers
        self._marks_streams = True  # whether streams carry TorchServe's header ts_stream_next
        self._origin = None  # the Context that this one is a copy of
        self.set_sequence_headers({})

    def set_sequence_headers(self, names):
        """Takes the names of the sequence headers: the server's, else the environment's, else TorchServe's."""
        self.header_key_sequence_id = _sequence_key(names, "sequence_id")
        self.header_key_sequence_start = _sequence_key(names, "sequence_start")
        self.header_key_sequence_end = _sequence_key(names, "sequence_end")

    def declare_metrics(self, section):
        """Takes the section ``model_metrics`` of the server's metrics configuration, or None."""
        self._declared_metrics = section

    def begin(self, items):
        """Makes these items the current batch."""
        self._items = items
        self._request_ids = None
        self._request_processor = None
        if self._metrics is not None:
            self._metrics.set_request_ids(self._joined_ids())

    def for_items(self, items):
        """A Context of its own for one batch of an asynchronous handler."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._origin = self
        copy._metrics = None
        copy.begin(items)
        return copy

    @property
    def system_properties(self):
        """A dict: ``model_dir``, ``gpu_id``, ``batch_size``, ``server_name`` and so on."""
        return self._system_properties

    @property
    def metrics(self):
        """The metrics cache."""
        if self._metrics is None:
            if self._origin is not None:
                # Request ids of its own, the same metrics and the same pile of values.
                metrics = shallow_copy(self._origin.metrics)
            else:
                from zoo_handler.metrics import MetricsCache

                metrics = MetricsCache(self.model_name)
                if self._declared_metrics:
                    metrics.declare(self._declared_metrics, "Load")
            metrics.set_request_ids(self._joined_ids())
            self._metrics = metrics
        return self._metrics

    @metrics.setter
    def metrics(self, metrics):
        self._metrics = metrics

    def _joined_ids(self):
        items = self._items
        return items[0].request_id if len(items) == 1 else ",".join([item.request_id for item in items])

    @property
    def request_ids(self):
        """Index in the batch → request id."""
        if self._request_ids is None:
            self._request_ids = {index: item.request_id for index, item in enumerate(self._items)}
        return self._request_ids

    @request_ids.setter
    def request_ids(self, request_ids):
        self._request_ids = request_ids

    @property
    def request_processor(self):
        """One RequestProcessor for each request of the batch."""
        if self._request_processor is None:
            self._request_processor = [ItemProcessor(item) for item in self._items]
        return self._request_processor

    @request_processor.setter
    def request_processor(self, request_processor):
        self._request_processor = request_processor

    def get_request_id(self, idx=0):
        """The id of one request, or None."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx, key):
        """One header of a request, or None."""
        if self._request_processor is None:
            return self._items[idx].headers.get(key)
        return self._request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx):
        """All headers of a request."""
        if self._request_processor is None:
            return self._items[idx].headers
        return self._request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx, value):
        """Sets the content type of an answer."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx):
        """The content type of an answer, or None."""
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx):
        """``(code, phrase)`` of an answer."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code=200, phrase="", idx=0):
        """Sets the status of one answer."""
        if self.request_processor:
            self.request_processor[idx].report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code=200, phrase=""):
        """Sets the status of all answers of the batch."""
        for processor in self.request_processor:
            processor.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx):
        """The headers of an answer."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx, key, value):
        """Sets a header of an answer."""
        self.request_processor[idx].add_response_property(key, value)

    def get_sequence_id(self, idx):
        """The id of the sequence that a request belongs to, or None."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def is_cancelled(self, idx=0):
        """Whether nobody waits for the answer of this request any more. Cheap enough to ask in a loop."""
        if self._inbox is None:
            return False
        self._inbox.poll()
        return self._items[idx].id in self._inbox.cancelled

    def __eq__(self, other):
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None


def _sequence_key(names, name):
    variable, default = _SEQUENCE_KEYS[name]
    return names.get(name) or os.environ.get(variable) or default

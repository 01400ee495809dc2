"""Writes and reads frames of TorchServe's worker protocol from the frontend's side, without the code under
test.
"""

import struct
from collections import namedtuple

Answer = namedtuple("Answer", "request_id content_type status phrase headers body")


class Reader:
    """Takes fields off a frame."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def int(self):
        (value,) = struct.unpack_from("!i", self.data, self.at)
        self.at += 4
        return value

    def take(self, size):
        self.at += size
        return self.data[self.at - size : self.at]

    def field(self):
        return self.take(self.int())


def parse_predict_response(data):
    reader = Reader(data)
    code, message, answers = reader.int(), reader.field().decode(), []
    while True:
        length = reader.int()
        if length == -1:
            assert reader.at == len(data), "bytes after the end of the frame"
            return code, message, answers
        request_id = reader.take(length).decode()
        content_type = reader.field().decode()
        status = reader.int()
        phrase = reader.field().decode()
        headers = {}
        for _ in range(reader.int()):
            name = reader.field().decode()
            headers[name] = reader.field().decode()
        answers.append(Answer(request_id, content_type, status, phrase, headers, reader.field()))


def field(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!i", len(data)) + data


END = struct.pack("!i", -1)


def load_frame(name, path, handler, batch_size=1, gpu=-1, envelope="", limit=True):
    return (
        b"L"
        + field(name)
        + field(path)
        + struct.pack("!i", batch_size)
        + field(handler)
        + struct.pack("!i", gpu)
        + field(envelope)
        + (b"\x01" if limit else b"\x00")
    )


def predict_frame(*requests):
    """Requests are `(id, headers, [(name, content type, value)])`."""
    frame = b"I"
    for request_id, headers, parameters in requests:
        frame += field(request_id)
        frame += b"".join(field(name) + field(value) for name, value in headers.items()) + END
        frame += b"".join(field(name) + field(kind) + field(value) for name, kind, value in parameters) + END
    return frame + END

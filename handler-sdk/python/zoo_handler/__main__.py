"""``python -m zoo_handler test ARCHIVE_OR_DIR --request FILE``: runs a handler without a server.

The body of the answer goes to standard output, everything else to standard error.
"""

import argparse
import logging
import mimetypes
import sys

from zoo_handler import __version__
from zoo_handler.errors import InvalidArchive


def main(arguments=None):
    """Returns the exit status: 0 if every answer is a success."""
    parser = argparse.ArgumentParser(prog="python -m zoo_handler", description="Zoo's handler SDK.")
    parser.add_argument("--version", action="version", version="zoo_handler " + __version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    test = commands.add_parser("test", help="load a model and predict, in this process")
    test.add_argument("model", metavar="ARCHIVE_OR_DIR", help="a .mar, a .tar.gz, or a folder")
    test.add_argument(
        "--request",
        metavar="FILE",
        action="append",
        default=[],
        help="a file with the body of a request, - for standard input; several are one batch",
    )
    test.add_argument("--content-type", metavar="TYPE", help="of the bodies; else guessed from the names")
    test.add_argument("--part", metavar="NAME", default="body", help="name of the part (default: body)")
    test.add_argument("--header", metavar="NAME: VALUE", action="append", default=[], help="a request header")
    test.add_argument("--path", default="", help="what follows the model in the URL")
    test.add_argument("--explain", action="store_true", help="ask for an explanation")
    test.add_argument("--handler", help="the handler, if the manifest names none or another")
    test.add_argument("--model-file", metavar="NAME", help="the model file of a folder that isn't packed yet")
    test.add_argument("--serialized-file", metavar="NAME", help="the weights of such a folder")
    test.add_argument("--config", metavar="FILE", help="a model-config file, YAML or JSON")
    test.add_argument("--gpu", type=int, help="index of the GPU that the handler is given")
    test.add_argument("--verbose", action="store_true", help="show what the handler logs below WARNING")
    options = parser.parse_args(arguments)
    try:
        return _test(options)
    except (InvalidArchive, OSError) as cause:
        print("error: {}".format(cause), file=sys.stderr)
        return 2


def _test(options):
    from zoo_handler.trial import Trial

    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=level)
    samples = [_sample(name, options) for name in options.request or ["-"]]
    files = {"modelFile": options.model_file, "serializedFile": options.serialized_file}
    trial = Trial(options.model, options.handler, options.config, len(samples), options.gpu, files)
    try:
        answers = trial.run(samples)
    finally:
        trial.close()
    for answer in answers:
        _show(answer)
    return 0 if all(200 <= answer.status < 300 and not answer.failed for answer in answers) else 1


def _sample(name, options):
    from zoo_handler.trial import Sample

    if name == "-":
        body = sys.stdin.buffer.read()
    else:
        with open(name, "rb") as file:
            body = file.read()
    content_type = options.content_type
    if content_type is None:
        content_type = mimetypes.guess_type(name)[0] or ""
    headers = [(text.partition(":")[0].strip(), text.partition(":")[2].strip()) for text in options.header]
    return Sample(body, content_type, options.part, headers, options.path, options.explain)


def _show(answer):
    if not answer.status:
        print("no answer: the worker has left", file=sys.stderr)
        return
    how = "streamed" if answer.streamed else "whole"
    print("status {} in {:.3f} ms, {}".format(answer.status, answer.milliseconds, how), file=sys.stderr)
    for name, value in answer.headers.items():
        print("{}: {}".format(name, value), file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.buffer.write(bytes(answer.body))
    if sys.stdout.isatty() and not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

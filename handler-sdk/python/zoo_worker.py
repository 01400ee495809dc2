"""The worker process of a Python model: ``python zoo_worker.py W-9000-mnist_1.0``, its standard input the link.

A script at the root of the SDK, so that the SDK is the first entry of the import path and wins over both
the model directory and an installed torchserve.
"""

import os
import sys

if __name__ == "__main__":
    sdk = os.path.dirname(os.path.realpath(__file__))
    # Until the worker itself is imported, nothing comes from the model directory, which PYTHONPATH puts in
    # front of the standard library: an archive that holds a json.py or a types.py must not break more than
    # itself.
    path = [entry for entry in sys.path if os.path.abspath(entry) != sdk]
    later = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:] = [sdk] + [entry for entry in path if os.path.abspath(entry) not in later]

    from zoo_handler.worker import main

    sys.path[:] = [sdk] + path
    main(sys.argv)

"""The worker process of a Python model: ``python zoo_worker.py W-9000-mnist_1.0``, standard input is the link.

A script at the root of the SDK, so that the SDK is the first entry of the import path and wins over both
the model directory and an installed torchserve.
"""

import os
import sys

_SDK = os.path.dirname(os.path.realpath(__file__))

if __name__ == "__main__":
    if sys.path[:1] != [_SDK]:  # python -P and PYTHONSAFEPATH leave the directory of the script out
        sys.path.insert(0, _SDK)
    from zoo_handler.worker import main

    main(sys.argv)

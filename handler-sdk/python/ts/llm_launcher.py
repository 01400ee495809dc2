"""Serves a language model by name: makes its model directory, starts the server, and removes both at the end.

python -m ts.llm_launcher --model_id meta-llama/Meta-Llama-3-8B-Instruct --disable_token_auth
"""

import argparse
import json
import os
import shutil
import sys
from typing import Any, Dict, List, Optional

from ts.launcher import start, stop

_ENGINES = {
    # engine: (built-in handler, prefix of its options, key of its configuration)
    "vllm": ("vllm_handler", "vllm_engine", "vllm_engine_config"),
    "trt_llm": ("trt_llm_handler", "trt_llm_engine", "trt_llm_engine_config"),
}


def parser() -> argparse.ArgumentParser:
    """The command line. Options `--vllm_engine.X` and `--trt_llm_engine.X` are arguments of the engine."""
    made = argparse.ArgumentParser(prog="python -m ts.llm_launcher", description=__doc__)
    made.add_argument("--model_name", default="model", help="name of the model on the server")
    made.add_argument("--model_store", default="model_store", help="directory of models")
    made.add_argument(
        "--model_id", default="meta-llama/Meta-Llama-3-8B-Instruct", help="name on the hub, or a path"
    )
    made.add_argument("--disable_token_auth", action="store_true", help="ask for no tokens")
    made.add_argument("--vllm_engine.max_num_seqs", type=int, default=256, help="sequences at a time")
    made.add_argument("--vllm_engine.max_model_len", type=int, help="longest sequence")
    made.add_argument("--vllm_engine.download_dir", help="where weights are kept")
    made.add_argument(
        "--startup_timeout", type=int, default=1200, help="seconds until the model must be ready"
    )
    made.add_argument("--engine", choices=sorted(_ENGINES), default="vllm", help="what runs the model")
    made.add_argument("--dtype", default="bfloat16", help="type of the weights")
    return made


def model_config(args: argparse.Namespace, engine_options: Dict[str, Any]) -> Dict[str, Any]:
    """The content of model-config.yaml."""
    _, prefix, key = _ENGINES[args.engine]
    engine = {
        name.split(".", 1)[1]: value
        for name, value in vars(args).items()
        if name.startswith(prefix + ".") and value is not None
    }
    engine.update(engine_options, dtype=args.dtype)
    return {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
        "responseTimeout": args.startup_timeout,
        "startupTimeout": args.startup_timeout,
        "deviceType": "gpu",
        "asyncCommunication": True,
        "handler": {"model_path": args.model_id, key: engine},
    }


def engine_options(rest: List[str], engine: str) -> Dict[str, Any]:
    """Options for the engine that this launcher doesn't know: `--PREFIX.NAME VALUE`, values as JSON if they
    are.
    """
    prefix = "--{}.".format(_ENGINES[engine][1])
    if len(rest) % 2 or not all(name.startswith(prefix) for name in rest[::2]):
        raise SystemExit(
            "unknown options: {}; those of the engine are {}NAME VALUE".format(" ".join(rest), prefix)
        )
    options = {}
    for name, text in zip(rest[::2], rest[1::2]):
        try:
            options[name[len(prefix) :]] = json.loads(text)
        except ValueError:
            options[name[len(prefix) :]] = text
    return options


def make_model_directory(args: argparse.Namespace, options: Dict[str, Any]) -> str:
    """Makes what the archiver would have made, unpacked. JSON is YAML."""
    directory = os.path.join(args.model_store, args.model_name)
    os.makedirs(os.path.join(directory, "MAR-INF"))
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": args.model_name,
            "modelVersion": "1.0",
            "handler": _ENGINES[args.engine][0],
            "configFile": "model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }
    with open(os.path.join(directory, "MAR-INF", "MANIFEST.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
    with open(os.path.join(directory, "model-config.yaml"), "w", encoding="utf-8") as file:
        json.dump(model_config(args, options), file, indent=2)
    return directory


def main(arguments: Optional[List[str]] = None) -> None:
    """The command line."""
    args, rest = parser().parse_known_args(arguments)
    directory = make_model_directory(args, engine_options(rest, args.engine))
    try:
        lines = start(
            model_store=args.model_store,
            no_config_snapshots=True,
            models=args.model_name,
            disable_token=args.disable_token_auth,
        )
        while True:
            print(lines.get(), end="", flush=True)
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

"""A configuration becomes the right command line, from a script as from the arguments of a program."""

import io
import json
import os
import sys
from argparse import Namespace
from contextlib import redirect_stderr
from typing import List
from unittest import mock

from fake_program import ProgramTest
from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.arg_parser import ArgParser
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging import generate_model_archive, package_model
from model_archiver.model_packaging_utils import ModelExportUtils

LEAST = ["--model-name=m", "--version=1.0", "--runtime=python", "--archive-format=default", "--handler=h.py"]


def _arguments(line: List[str]):
    return mock.patch.object(sys, "argv", ["torch-model-archiver"] + line)


class Arguments(ProgramTest):
    def test_least(self) -> None:
        fake = self.program()
        ModelArchiver.generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0"))
        self.assertCountEqual(fake.arguments, LEAST + ["--export-path=" + os.getcwd()])

    def test_everything(self) -> None:
        fake = self.program()
        config = ModelArchiverConfig(
            model_name="m",
            handler="dir/h:entry",
            version="-1",
            serialized_file="w.pt",
            model_file="net.py",
            extra_files="a,b",
            runtime="python3",
            export_path="out",
            archive_format="tgz",
            force=True,
            requirements_file="r.txt",
            config_file="c.yaml",
        )
        ModelArchiver.generate_model_archive(config)
        expected = [
            *[
                "--model-name=m",
                "--handler=dir/h:entry",
                "--version=-1",
                "--serialized-file=w.pt",
                "--model-file=net.py",
            ],
            *[
                "--extra-files=a,b",
                "--runtime=python3",
                "--export-path=out",
                "--archive-format=tgz",
                "--force",
            ],
            *["--requirements-file=r.txt", "--config-file=c.yaml"],
        ]
        self.assertCountEqual(fake.arguments, expected)

    def test_empty_optional_values_are_not_given(self) -> None:
        fake = self.program()
        config = ModelArchiverConfig("m", "h.py", "1.0", serialized_file="", extra_files="", export_path="")
        generate_model_archive(config)
        self.assertCountEqual(fake.arguments, LEAST + ["--export-path="])

    def test_runtime_without_handler(self) -> None:
        fake = self.program()
        generate_model_archive(
            ModelArchiverConfig("m", None, "1.0", serialized_file="w.onnx", runtime="onnx")
        )
        self.assertIn("--runtime=onnx", fake.arguments)
        self.assertFalse([word for word in fake.arguments if word.startswith("--handler")])

    def test_unknown_runtime_starts_nothing(self) -> None:
        fake = self.program()
        with self.assertRaisesRegex(ValueError, "'java' is not a valid RuntimeType"):
            generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0", runtime="java"))
        self.assertRaises(FileNotFoundError, lambda: fake.call)

    def test_failure_is_logged_and_raised(self) -> None:
        self.program("ERROR - no\n", status=1)
        with self.assertLogs(level="ERROR") as logs, self.assertRaisesRegex(ModelArchiverError, "^no$"):
            generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0"))
        self.assertEqual(logs.output, ["ERROR:root:no"])


class ManifestOfTheCaller(ProgramTest):
    CONFIG = ModelArchiverConfig("m", "h.py", "1.0", export_path="out")

    def test_what_the_configuration_says_is_left_to_the_program(self) -> None:
        fake = self.program()
        package_model(self.CONFIG, ModelExportUtils.generate_manifest_json(self.CONFIG))
        self.assertIsNone(fake.call["manifest"])

    def test_another_time_is_no_other_manifest(self) -> None:
        fake = self.program()
        manifest = json.loads(ModelExportUtils.generate_manifest_json(self.CONFIG))
        manifest.update(createdOn="01/01/2001 00:00:00", archiverVersion="0.0.1")
        package_model(self.CONFIG, json.dumps(manifest))
        self.assertIsNone(fake.call["manifest"])

    def test_another_manifest_is_handed_over_word_for_word(self) -> None:
        fake = self.program()
        manifest = json.loads(ModelExportUtils.generate_manifest_json(self.CONFIG))
        manifest["model"]["extensions"] = {"batch": "caf\u00e9"}
        text = json.dumps(manifest, ensure_ascii=False)
        package_model(self.CONFIG, text)
        self.assertEqual(fake.call["manifest"], text)
        (path,) = [word for word in fake.arguments if word.startswith("--manifest=")]
        self.assertFalse(os.path.exists(path[len("--manifest=") :]))

    def test_what_is_no_manifest_is_the_programs_to_refuse(self) -> None:
        fake = self.program("ERROR - not an object\n", status=1)
        with self.assertRaisesRegex(ModelArchiverError, "not an object"):
            package_model(self.CONFIG, "[]")
        self.assertEqual(fake.call["manifest"], "[]")


class CommandLine(ProgramTest):
    def test_defaults(self) -> None:
        with _arguments(["--model-name", "m", "--version", "1.0", "--handler", "h.py"]):
            config = ArgParser.export_model_args_parser()
        self.assertEqual(config, ModelArchiverConfig("m", "h.py", "1.0"))

    def test_everything(self) -> None:
        line = "--model-name m -v 2 --handler h --serialized-file w --model-file n"
        line += " --extra-files a --extra-files b,c"
        line += " --runtime LSP --export-path o --archive-format no-archive -f -r r -c c"
        with _arguments(line.split()):
            config = ArgParser.export_model_args_parser()
        self.assertEqual(
            config,
            ModelArchiverConfig("m", "h", "2", "w", "n", "b,c", "LSP", "o", "no-archive", True, "r", "c"),
        )

    def test_generate_reads_it(self) -> None:
        fake = self.program()
        with _arguments(["--model-name", "m", "--version", "1.0", "--handler", "h.py"]):
            generate_model_archive()
        self.assertIn("--handler=h.py", fake.arguments)

    def test_handler_is_required_where_python_runs(self) -> None:
        said = io.StringIO()
        with _arguments(["--model-name", "m", "--version", "1"]), redirect_stderr(said):
            with self.assertRaises(SystemExit) as ended:
                ArgParser.export_model_args_parser()
        self.assertEqual(ended.exception.code, 2)
        self.assertIn("--handler", said.getvalue())

    def test_handler_is_optional_where_it_does_not(self) -> None:
        with _arguments(["--model-name", "m", "--version", "1", "--runtime", "torchscript"]):
            self.assertIsNone(ArgParser.export_model_args_parser().handler)

    def test_from_args(self) -> None:
        namespace = Namespace(
            **dict.fromkeys(
                ["serialized_file", "model_file", "extra_files", "requirements_file", "config_file"]
            ),
            **{"model_name": "m", "handler": "h", "version": "1", "runtime": "python", "export_path": "o"},
            **{"archive_format": "tgz", "force": True, "unrelated": 1},
        )
        config = ModelArchiverConfig.from_args(namespace)
        self.assertEqual(
            config, ModelArchiverConfig("m", "h", "1", export_path="o", archive_format="tgz", force=True)
        )

    def test_export_path_is_where_one_is_when_configuring(self) -> None:
        old = os.getcwd()
        self.addCleanup(os.chdir, old)
        os.chdir(str(self.folder))
        self.assertEqual(ModelArchiverConfig("m", "h", "1").export_path, str(self.folder))

"""The manifest has the keys, the order and the text that servers know."""

import json
import re
import unittest
from pathlib import Path

import model_archiver
from model_archiver.manifest_components.manifest import Manifest, RuntimeType
from model_archiver.manifest_components.model import Model


class TheManifest(unittest.TestCase):
    def test_keys_and_order(self) -> None:
        model = Model("m", "dir/w.pt", "dir/h.py:f", "dir/net.py", "1.0", {"a": 1}, "dir/r.txt", "dir/c.yaml")
        manifest = json.loads(str(Manifest("python3", model)))
        self.assertEqual(list(manifest), ["createdOn", "runtime", "model", "archiverVersion"])
        self.assertRegex(manifest["createdOn"], r"^\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$")
        self.assertEqual(
            list(manifest["model"].items()),
            [
                ("modelName", "m"),
                ("serializedFile", "w.pt"),
                ("handler", "h.py:f"),
                ("modelFile", "net.py"),
                ("modelVersion", "1.0"),
                ("extensions", {"a": 1}),
                ("requirementsFile", "r.txt"),
                ("configFile", "c.yaml"),
            ],
        )

    def test_unset_keys_are_left_out(self) -> None:
        self.assertEqual(json.loads(str(Model("m", None, "h"))), {"modelName": "m", "handler": "h"})
        self.assertEqual(
            json.loads(str(Model("m", "w.onnx", None))), {"modelName": "m", "serializedFile": "w.onnx"}
        )

    def test_text_is_indented_by_two(self) -> None:
        text = str(Manifest("python", Model("m", None, "h")))
        self.assertEqual(text, repr(Manifest("python", Model("m", None, "h"))))
        self.assertTrue(text.startswith('{\n  "createdOn": "'), text)
        self.assertIn('\n  "model": {\n    "modelName": "m",\n', text)

    def test_runtimes(self) -> None:
        self.assertEqual(
            (RuntimeType.PYTHON.value, RuntimeType.PYTHON3.value, RuntimeType.LSP.value),
            ("python", "python3", "LSP"),
        )
        self.assertRaises(ValueError, Manifest, "java", Model("m", None, "h"))

    def test_version_is_the_projects(self) -> None:
        cargo = Path(__file__).resolve().parents[4] / "Cargo.toml"
        (version,) = re.findall(r'^version = "(.*)"$', cargo.read_text(encoding="utf-8"), re.MULTILINE)
        self.assertEqual(model_archiver.__version__, version)

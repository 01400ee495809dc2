"""The single steps. Those that pack are shown with the real program, if `ZOO_ARCHIVER` names one."""

import io
import os
import shutil
import tarfile
import tempfile
import unittest
import zipfile
from unittest import mock

from fake_program import ProgramTest
from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging_utils import ModelExportUtils


class Rules(ProgramTest):
    def test_model_names(self) -> None:
        for name in ("m", "resnet-18", "a.b_c", "7"):
            ModelExportUtils.check_model_name_regex_or_exit(name)
        for name in ("", ".m", "-m", "a b", "a/b", "mod\u00e8le"):
            with self.assertRaisesRegex(ModelArchiverError, "special characters.\nThe allowed"):
                ModelExportUtils.check_model_name_regex_or_exit(name)

    def test_inputs(self) -> None:
        ModelExportUtils.validate_inputs("m", str(self.folder))
        with self.assertRaisesRegex(ModelArchiverError, "Given export-path /none is not a directory"):
            ModelExportUtils.validate_inputs("m", "/none")

    def test_archive_paths(self) -> None:
        shapes = {"default": "o/m.mar", "zip-store": "o/m.mar", "tgz": "o/m.tar.gz", "no-archive": "o/m"}
        for archive_format, path in shapes.items():
            self.assertEqual(ModelExportUtils.get_archive_export_path("o", "m", archive_format), path)

    def test_existing_archive(self) -> None:
        there = str(self.folder)
        (self.folder / "m.mar").touch()
        with self.assertRaisesRegex(ModelArchiverError, "m.mar already exists.\nPlease specify --force/-f"):
            ModelExportUtils.check_mar_already_exists("m", there, False)
        with self.assertLogs(level="WARNING") as logs:
            self.assertEqual(ModelExportUtils.check_mar_already_exists("m", there, True), there)
        self.assertEqual(logs.output, [f"WARNING:root:Overwriting {there}/m.mar ..."])
        self.assertEqual(ModelExportUtils.check_mar_already_exists("m", there, False, "tgz"), there)
        self.assertEqual(ModelExportUtils.check_mar_already_exists("none", None, False), os.getcwd())

    def test_find_unique(self) -> None:
        self.assertIsNone(ModelExportUtils.find_unique(["a.txt"], ".pt"))
        self.assertEqual(ModelExportUtils.find_unique(["a.txt", "b.pt"], ".pt"), "b.pt")
        with self.assertRaisesRegex(ModelArchiverError, r"only one .pt file .* 2 files \['a.pt', 'b.pt'\]"):
            ModelExportUtils.find_unique(["a.pt", "b.pt"], ".pt")

    def test_filters(self) -> None:
        self.assertTrue(ModelExportUtils.directory_filter("sub", {"x"}))
        self.assertFalse(ModelExportUtils.directory_filter("x", {"x"}))
        self.assertFalse(ModelExportUtils.directory_filter(".git", set()))
        self.assertTrue(ModelExportUtils.file_filter("a.py", set()))
        for name in ("MANIFEST.json", "a.pyc", "x.DS_Store", "m.mar", "listed"):
            self.assertFalse(ModelExportUtils.file_filter(name, {"listed"}))

    def test_temp_files_and_folders(self) -> None:
        folder = self.folder / "a/b"
        ModelExportUtils.make_dir(str(folder))
        ModelExportUtils.make_dir(str(folder))
        (folder / "c").touch()
        ModelExportUtils.clean_temp_files([str(folder / "c")])
        self.assertEqual(os.listdir(str(folder)), [])


class ArchiveDir(ProgramTest):
    def setUp(self) -> None:
        super().setUp()
        self.source = self.folder / "source"
        for name in ("a.txt", ".dot", "sub/b.txt", ".git/x", "__pycache__/x", "sub/__MACOSX/x"):
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def test_zip(self) -> None:
        with zipfile.ZipFile(io.BytesIO(), "w") as archive:
            ModelExportUtils.archive_dir(str(self.source), archive, "default", "m")
            self.assertCountEqual(archive.namelist(), ["a.txt", ".dot", "sub/b.txt"])

    def test_tar(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(), mode="w:gz") as archive:
            ModelExportUtils.archive_dir(str(self.source), archive, "tgz", "m")
            self.assertCountEqual(archive.getnames(), ["m/a.txt", "m/.dot", "m/sub/b.txt"])

    def test_folder(self) -> None:
        target = self.folder / "target"
        ModelExportUtils.archive_dir(str(self.source), str(target), "no-archive", "m")
        files = [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]
        self.assertCountEqual(files, ["a.txt", ".dot", "sub/b.txt"])


@unittest.skipUnless(os.environ.get("ZOO_ARCHIVER"), "ZOO_ARCHIVER doesn't name a zoo-archiver program")
class WithTheRealProgram(ProgramTest):
    def setUp(self) -> None:
        super().setUp()
        old = os.getcwd()
        self.addCleanup(os.chdir, old)
        os.chdir(str(self.folder))
        (self.folder / "extra/sub").mkdir(parents=True)
        for name in ("w.pt", "h.py", "c.yaml", "extra/x.txt", "extra/sub/y.txt"):
            (self.folder / name).write_text(name)
        self.config = ModelArchiverConfig(
            "m", "h.py", "1.0", "w.pt", extra_files="extra", config_file="c.yaml"
        )
        temporary = self.folder / "tmp"
        temporary.mkdir()
        patch = mock.patch.object(tempfile, "tempdir", str(temporary))
        patch.start()
        self.addCleanup(patch.stop)
        self.temporary = temporary

    def names(self, path: str = "m.mar"):
        with zipfile.ZipFile(path) as archive:
            return sorted(set(archive.namelist()) - {"MAR-INF/SHA256SUMS"})

    def test_archive_of_a_configuration(self) -> None:
        ModelArchiver.generate_model_archive(self.config)
        self.assertEqual(
            self.names(), ["MAR-INF/MANIFEST.json", "c.yaml", "h.py", "sub/y.txt", "w.pt", "x.txt"]
        )
        with self.assertRaisesRegex(ModelArchiverError, "m.mar already exists"):
            ModelArchiver.generate_model_archive(self.config)

    def test_missing_files(self) -> None:
        for change in ({"serialized_file": "none.pt"}, {"extra_files": "none.txt"}):
            with self.assertRaisesRegex(FileNotFoundError, "none"):
                ModelArchiver.generate_model_archive(ModelArchiverConfig("m", "h.py", "1.0", **change))
        self.assertFalse(os.path.exists("m.mar"))

    def test_steps_make_the_same_archive(self) -> None:
        artefacts = {
            "handler": "h.py",
            "serialized_file": "w.pt",
            "extra_files": "extra",
            "config_file": "c.yaml",
        }
        folder = ModelExportUtils.copy_artifacts("m", "python", **artefacts)
        self.assertEqual(sorted(os.listdir(folder)), ["c.yaml", "h.py", "sub", "w.pt", "x.txt"])
        manifest = ModelExportUtils.generate_manifest_json(self.config).replace('"m"', '"other"')
        for archive_format in ("default", "zip-store"):
            ModelExportUtils.archive(str(self.folder), "m", folder, manifest, archive_format)
            self.assertEqual(
                self.names(), ["MAR-INF/MANIFEST.json", "c.yaml", "h.py", "sub/y.txt", "w.pt", "x.txt"]
            )
            with zipfile.ZipFile("m.mar") as archive:
                self.assertEqual(archive.read("MAR-INF/MANIFEST.json").decode(), manifest)
        shutil.rmtree(folder)
        self.assertEqual(os.listdir(str(self.temporary)), [])

    def test_archive_in_place(self) -> None:
        (self.folder / "m").mkdir()
        (self.folder / "m/w.pt").write_text("w")
        ModelExportUtils.archive(str(self.folder), "m", str(self.folder / "m"), "{}", "no-archive")
        self.assertEqual((self.folder / "m/MAR-INF/MANIFEST.json").read_text(), "{}")
        self.assertEqual(sorted(os.listdir(str(self.folder / "m"))), ["MAR-INF", "w.pt"])

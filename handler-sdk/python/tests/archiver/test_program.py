"""The program is found where the message says, and what it says becomes the right exception."""

import os
import shutil
import sys
from unittest import mock

from fake_program import FakeProgram, ProgramTest
from model_archiver import program
from model_archiver.model_archiver_error import ModelArchiverError


class Find(ProgramTest):
    def setUp(self) -> None:
        super().setUp()
        self.environment(ZOO_ARCHIVER=None, PATH=str(self.folder / "on-path"))
        patch = mock.patch.object(sys, "executable", str(self.folder / "beside" / "python"))
        patch.start()
        self.addCleanup(patch.stop)

    def install(self, place: str) -> str:
        (self.folder / place).mkdir()
        shutil.copy(str(FakeProgram(self.folder).path), str(self.folder / place / "zoo-archiver"))
        return str(self.folder / place / "zoo-archiver")

    def test_environment_wins(self) -> None:
        self.install("beside")
        fake = self.program()
        self.assertEqual(program.find(), str(fake.path))

    def test_beside_the_interpreter_comes_next(self) -> None:
        beside = self.install("beside")
        self.install("on-path")
        self.assertEqual(program.find(), beside)

    def test_path_comes_last(self) -> None:
        on_path = self.install("on-path")
        self.assertEqual(program.find(), on_path)

    def test_missing_names_the_three_places(self) -> None:
        with self.assertRaises(ModelArchiverError) as raised:
            program.find()
        for place in ("ZOO_ARCHIVER", os.path.join(str(self.folder), "beside", "zoo-archiver"), "PATH"):
            self.assertIn(place, str(raised.exception))

    def test_bad_environment_is_not_passed_over(self) -> None:
        self.install("beside")
        self.environment(ZOO_ARCHIVER="/nowhere/zoo")
        with self.assertRaisesRegex(ModelArchiverError, "ZOO_ARCHIVER names '/nowhere/zoo'"):
            program.find()

    def test_file_that_is_no_program(self) -> None:
        broken = self.folder / "broken"
        broken.write_text("#!/nowhere/interpreter\n")
        broken.chmod(0o700)
        self.environment(ZOO_ARCHIVER=str(broken))
        with self.assertRaisesRegex(ModelArchiverError, "broken can't be started"):
            program.run([])


class Failures(ProgramTest):
    def failure(self, stderr: str, status: int = 1) -> BaseException:
        self.program(stderr, status)
        with self.assertRaises(Exception) as raised:
            program.run([])
        return raised.exception

    def test_message_becomes_the_packages_error(self) -> None:
        error = self.failure("ERROR - m.mar already exists.\nPlease specify --force.\n")
        self.assertIsInstance(error, ModelArchiverError)
        self.assertEqual(str(error), "m.mar already exists.\nPlease specify --force.")

    def test_system_error_keeps_number_and_path(self) -> None:
        error = self.failure("ERROR - [Errno 2] No such file or directory: 'none.pt'\n")
        self.assertIsInstance(error, FileNotFoundError)
        self.assertEqual((error.errno, error.filename), (2, "none.pt"))
        self.assertEqual(str(error), "[Errno 2] No such file or directory: 'none.pt'")

    def test_system_error_with_a_quote_in_the_path(self) -> None:
        error = self.failure('ERROR - [Errno 21] Is a directory: "it\'s"\n')
        self.assertIsInstance(error, IsADirectoryError)
        self.assertEqual(error.filename, "it's")

    def test_missing_extra_file(self) -> None:
        error = self.failure("ERROR - File does not exist: none.txt\n")
        self.assertIsInstance(error, FileNotFoundError)
        self.assertEqual(str(error), "File does not exist: none.txt")

    def test_invalid_extra_file(self) -> None:
        error = self.failure("ERROR - Invalid extra file given pipe\n")
        self.assertIsInstance(error, ValueError)
        self.assertEqual(str(error), "Invalid extra file given pipe")

    def test_usage_error(self) -> None:
        error = self.failure("error: unexpected argument '--x'\n", status=2)
        self.assertIsInstance(error, ModelArchiverError)
        self.assertEqual(str(error), "error: unexpected argument '--x'")

    def test_silent_failure_names_program_and_status(self) -> None:
        self.assertRegex(str(self.failure("", status=3)), "fake-archiver failed with exit status 3")

    def test_killed(self) -> None:
        fake = self.program()
        fake.path.write_text(f"#!{sys.executable}\nimport os\nos.kill(os.getpid(), 9)\n")
        with self.assertRaisesRegex(ModelArchiverError, "ended by signal 9"):
            program.run([])

    def test_warnings_are_logged_and_are_not_the_error(self) -> None:
        self.program("WARNING - Overwriting m.mar ...\nERROR - disk is full\n", status=1)
        with self.assertLogs(level="WARNING") as logs, self.assertRaises(ModelArchiverError) as raised:
            program.run([])
        self.assertEqual(logs.output, ["WARNING:root:Overwriting m.mar ..."])
        self.assertEqual(str(raised.exception), "disk is full")

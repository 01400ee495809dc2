"""`ts.launcher` against a stand-in for the server's command, and against a real HTTP listener."""

import http.server
import json
import os
import sys
import threading

import pytest

from ts import launcher

SERVER = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0")" "$@" >>"$CALLS"
echo -- >>"$CALLS"
if [[ $1 == --start ]]; then
    {}
fi
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Puts a `torchserve` first on the path; gives a function that lists how it was called."""
    calls = tmp_path / "calls"
    calls.write_text("")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))

    def install(start, name="torchserve"):
        program = tmp_path / name
        program.write_text(SERVER.format(start))
        program.chmod(0o755)

    def called():
        return [call.strip().split("\n") for call in calls.read_text().split("--\n") if call.strip()]

    install.called = called
    return install


def test_start_and_stop(server, capsys):
    server("echo booting; echo 'Model server started.'; echo later; echo latest")
    lines = launcher.start("store", "c.properties", True, "plugins", True, "a.mar", True)
    assert [lines.get(timeout=30), lines.get(timeout=30)] == ["later\n", "latest\n"]
    launcher.stop(wait=False)
    assert capsys.readouterr().out == "booting\nModel server started.\n"
    options = (
        "--start --model-store store --plugins-path plugins --ts-config c.properties --no-config-snapshots "
    )
    options += "--disable-token-auth --models a.mar --enable-model-api"
    assert server.called() == [
        ["torchserve", "--stop", "--foreground"],
        ["torchserve"] + options.split(),
        ["torchserve", "--stop"],
    ]


def test_a_server_that_does_not_start(server):
    server("echo 'no store'; exit 3")
    with pytest.raises(RuntimeError, match="(?s)status 3 before it had started.*no store"):
        launcher.start()


def test_zoo_server_is_called_torchserve(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    server("true", "zoo-server")
    program, name = launcher.server_command()
    assert (os.path.basename(program), os.path.basename(name)) == ("zoo-server", "torchserve")


def test_scripts_of_pip_are_passed_over(tmp_path, monkeypatch):
    script = tmp_path / "torchserve"
    script.write_text("#!/opt/venv/bin/python3\nimport ts.model_server\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match="install-compat"):
        launcher.server_command()


@pytest.fixture
def management(monkeypatch):
    """A management API that answers with what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(409 if "taken" in self.path else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": self.path}).encode())

        def log_message(self, *args):
            pass

    listener = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    monkeypatch.setattr(launcher, "MANAGEMENT", "http://127.0.0.1:{}".format(listener.server_port))
    yield
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_register_model(management):
    response = launcher.register_model("mnist", "http://x/a b.mar")
    assert (response.status_code, response.ok) == (200, True)
    wanted = "/models?model_name=mnist&url=http%3A%2F%2Fx%2Fa+b.mar&initial_workers=1&synchronous=true"
    assert response.json() == {"status": wanted}


def test_register_model_refused(management):
    response = launcher.register_model_with_params((("model_name", "taken"), ("batch_size", 4)))
    assert (response.status_code, response.ok) == (409, False)
    assert response.text == '{"status": "/models?model_name=taken&batch_size=4"}'

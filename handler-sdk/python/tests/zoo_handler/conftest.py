"""Makes the SDK importable as it is for a worker: its root is the first entry of the import path."""

import os
import sys

import pytest

SDK = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if sys.path[0] != SDK:
    sys.path.insert(0, SDK)


@pytest.fixture
def start(tmp_path):
    """Starts workers whose model directory holds the given files, and ends them after the test."""
    from peer import Peer

    peers = []

    def start_worker(source="", *, files=None, ready=True, environment=None, **load):
        directory = tmp_path / "model{}".format(len(peers))
        directory.mkdir()
        for name, text in {**({"h.py": source} if source else {}), **(files or {})}.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        peer = Peer(str(directory), environment)
        peers.append(peer)
        peer.hello()
        peer.load(**load)
        if ready:
            peer.loaded = peer.expect_loaded()
        return peer

    yield start_worker
    for peer in peers:
        peer.end()

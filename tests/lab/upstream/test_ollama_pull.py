"""The stand-in ``ollama`` pulls and stores models like the real one.

Each row was first seen on the real server.
"""

import concurrent.futures
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.lab.upstream.odd_registry import Oddity
from tests.lab.upstream.rig import FRANCE, MODEL, WEIGHTS, Lab, Server, until

# Pull


@pytest.mark.parametrize(
    ("name", "insecure", "error"),
    [
        ("{registry}/library/nope", True, "pull model manifest: file does not exist"),
        ("{registry}/library/tiny", False, "tls: first record does not look like a TLS handshake"),
        (
            "http://{registry}/library/tiny",
            False,
            "tls: first record does not look like a TLS handshake",
        ),
        ("127.0.0.1:1/library/tiny", True, "connect: connection refused"),
    ],
)
def test_pull_error_hides_in_a_200(
    cold: Server, registry: str, name: str, insecure: bool, error: str
) -> None:
    body = {"model": name.format(registry=registry), "insecure": insecure}
    first, last = cold.lines("/api/pull", body)
    assert first == {"status": "pulling manifest"}
    assert error in last["error"]
    status, answer = cold.ask("/api/pull", body)
    assert (status, answer) == (500, last)


NO_LOCATION = "http: no Location header in response"


@pytest.mark.parametrize(
    ("behaviour", "size", "error"),
    [
        ("nothing", 1000, NO_LOCATION),
        ("relative", 1000, None),
        ("absolute", 1000, None),
        ("redirect", 1000, NO_LOCATION),
        ("redirect+location", 1000, None),
        ("redirect other", 1000, None),
        ("redirect other found", 1000, "unexpected status code 302"),
        ("deaf", 1000, None),
        ("deaf", 100_000_001, "digest mismatch, file must be downloaded again: want sha256:"),
    ],
)
def test_pull_from_an_odd_registry(
    cold: Server, oddity: Callable[..., Oddity], behaviour: str, size: int, error: str | None
) -> None:
    odd = oddity(behaviour=behaviour, size=size)
    blob = cold.models / "blobs" / odd.digest.replace(":", "-")
    for left in blob.parent.glob(blob.name + "*"):
        left.unlink()
    status, answer = cold.ask("/api/pull", {"model": f"{odd.address}/a/b", "insecure": True})
    if error is None:
        assert (status, answer, blob.exists()) == (200, {"status": "success"}, True)
    else:
        assert (status, blob.exists()) == (500, False)
        assert answer["error"].startswith(error)
    left_over = sorted(
        path.name.removeprefix(blob.name) for path in blob.parent.glob(blob.name + "-*")
    )
    assert left_over == (
        ["-partial", "-partial-0"] if "mismatch" not in (error or "mismatch") else []
    )


def part_done(part: Path) -> int:
    """Return a part's saved progress in bytes; the server empties the file before each write."""
    text = part.read_text()
    return json.loads(text)["Completed"] if text.endswith("}\n") else 0


def test_pull_resumes_where_it_was_cut(cold: Server, oddity: Callable[..., Oddity]) -> None:
    odd = oddity(behaviour="held", size=100_000_500)
    body = {"model": f"{odd.address}/a/held", "insecure": True}
    blob = cold.models / "blobs" / odd.digest.replace(":", "-")
    with requests.post(f"{cold.url}/api/pull", json=body, stream=True, timeout=20) as answer:
        for line in answer.iter_lines():
            if json.loads(line).get("completed", 0) >= odd.size // 2:
                break
    until(lambda: part_done(Path(f"{blob}-partial-0")), "the part is saved")
    assert Path(f"{blob}-partial").stat().st_size == odd.size
    odd.behaviour = "relative"
    odd.asked.clear()
    assert cold.ask("/api/pull", body)[1] == {"status": "success"}
    assert sorted(odd.asked) == ["bytes=100000250-100000499", "bytes=50000000-99999999", "whole"]


def test_pulls_of_one_blob_share_it(cold: Server, oddity: Callable[..., Oddity]) -> None:
    odd = oddity(behaviour="held", size=2000)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pulls = [
            pool.submit(cold.ask, "/api/pull", {"model": f"{odd.address}/a/{n}", "insecure": True})
            for n in ("one", "two")
        ]
        time.sleep(0.3)
        odd.gate.set()
        assert [p.result() for p in pulls] == [(200, {"status": "success"})] * 2
    assert odd.asked == ["whole", "bytes=0-1999"]


# The store


def test_seeded_model_needs_no_restart(shared: Server) -> None:
    source = shared.models / "manifests/registry.ollama.ai/library/gpt-oss/20b"
    shutil.copy(source, source.with_name("seeded"))
    names = [m["name"] for m in shared.call("/api/tags").json()["models"]]
    assert "gpt-oss:seeded" in names
    assert shared.ask("/api/chat", {"model": "gpt-oss:seeded", "messages": FRANCE})[0] == 200
    broken = json.loads(source.read_text())
    broken["layers"][0]["digest"] = f"sha256:{'0' * 64}"
    source.with_name("broken").write_text(json.dumps(broken))
    names = [m["name"] for m in shared.call("/api/tags").json()["models"]]
    assert "gpt-oss:broken" in names
    status, answer = shared.ask("/api/chat", {"model": "gpt-oss:broken", "messages": FRANCE})
    assert (status, answer) == (400, {"error": '"gpt-oss:broken" does not support chat'})
    status, answer = shared.ask("/api/show", {"model": "gpt-oss:broken"})
    assert (status, answer) == (404, {"error": "model 'gpt-oss:broken' not found"})


@pytest.mark.parametrize(
    ("noprune", "kept"), [("", False), ("0", False), ("1", True), ("no", True)]
)
def test_start_prunes_what_is_old(lab: Lab, noprune: str, kept: bool) -> None:
    stale = (f"sha256-{'1' * 64}", f"sha256-{'2' * 64}-partial-0", "junk")
    fresh = f"sha256-{'3' * 64}"

    def seed(server: Server) -> None:
        blobs = server.models / "blobs"
        (blobs / fresh).touch()
        for name in stale:
            (blobs / name).touch()
            os.utime(blobs / name, (0, time.time() - 7200))

    server = lab.start(before=seed, OLLAMA_NOPRUNE=noprune)
    left = {path.name for path in (server.models / "blobs").iterdir()}
    assert {name in left for name in stale} == {kept}
    assert fresh in left
    assert server.blob.name in left


def corrupt_magic(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)


def corrupt_tensors(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(200_000_000)
        file.write(os.urandom(20_000_000))


@pytest.mark.parametrize(
    ("damage", "status", "error"),
    [
        (corrupt_magic, 400, '"{far}" does not support chat'),
        (
            lambda path: os.truncate(path, 200_000_000),
            500,
            'tensor "blk.4.attn_k.weight" offset+size (200082112) exceeds file size (200000000)',
        ),
        (corrupt_tensors, 200, None),
    ],
    ids=["magic", "truncated", "flipped"],
)
def test_damaged_blob_survives_a_pull(
    lab: Lab, registry: str, damage: Callable[[Path], None], status: int, error: str | None
) -> None:
    def harm(server: Server) -> None:
        shutil.copyfile(server.blob, server.blob.with_name("own"))
        server.blob.with_name("own").rename(server.blob)
        damage(server.blob)

    server = lab.start(before=harm)
    size = server.blob.stat().st_size
    far = f"{registry}/library/{MODEL}"
    lines = server.lines("/api/pull", {"model": far, "insecure": True})
    assert {"status": "verifying sha256 digest"} in lines
    assert lines[-1] == {"status": "success"}
    assert server.blob.stat().st_size == size
    options = {"num_predict": 8}
    got, answer = server.ask("/api/chat", {"model": far, "messages": FRANCE, "options": options})
    assert (got, answer.get("error")) == (status, error and error.format(far=far))
    if error is None:
        assert "Paris" not in answer["message"]["content"]


def test_blob_upload_and_create_from_it(lab: Lab, idle: Path) -> None:
    server = lab.start(tree=idle)
    content = b"not a model"
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    url = f"{server.url}/api/blobs/{digest}"
    wrong = requests.post(url, data=b"other", timeout=10)
    assert wrong.status_code == 400
    assert "digest mismatch" in wrong.json()["error"]
    assert requests.post(url, data=content, timeout=10).status_code == 201
    assert requests.post(url, data=content, timeout=10).status_code == 200
    bad = server.lines("/api/create", {"model": "bad", "files": {"m.gguf": digest}})
    assert bad[-1] == {"error": "supplied file was not in GGUF format"}
    status, answer = server.ask("/api/create", {"model": "bad", "files": {"m.gguf": digest}})
    assert (status, answer) == (400, bad[-1])
    assert server.ask("/api/create", {"model": "mine", "files": {"/m.gguf": WEIGHTS}})[0] == 400
    body = {"model": "mine", "files": {"m.gguf": WEIGHTS}, "template": "{{ .Prompt }}"}
    assert server.lines("/api/create", body)[-1] == {"status": "success"}
    shown = server.call("/api/show", {"model": "MINE"}).json()
    assert shown["template"] == "{{ .Prompt }}"

    # Every imported file is rewritten: another one lies beside what was handed over.
    def weights(name: str) -> str:
        manifest = server.models / "manifests/registry.ollama.ai/library" / name / "latest"
        [layer] = [
            item for item in json.loads(manifest.read_text())["layers"]
            if item["mediaType"].endswith(".model")
        ]  # fmt: skip
        return str(layer["digest"])

    made = weights("mine")
    assert made != WEIGHTS
    body = {"model": "again", "files": {"m.gguf": made}}
    assert server.lines("/api/create", body)[-1] == {"status": "success"}
    assert weights("again") == made, "what is done to its own work is the same again"
    assert shown["details"]["quantization_level"] == "Q4_K_M"

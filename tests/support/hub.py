"""A stand-in of the hub on loopback: repositories of models in memory, made, uploaded to and downloaded over HTTP.

It speaks the part of the hub's API that ``huggingface_hub`` uses for ``create_repo``, ``upload_folder`` (files in the
commit, and git-LFS for weights), ``hf_hub_download`` and ``snapshot_download``.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_stand_in"


class Hub:
    """The repositories: files by repository and path, and what was asked for.

    Attributes:
        address: Its URL.
    """

    address: str

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}  # of git-LFS, by sha256
        self.asked: list[str] = []

    def commit_of(self, name: str) -> str:
        """The hash of a repository's state."""
        digest = hashlib.sha1()
        for path, body in sorted(self.files[name].items()):
            digest.update(path.encode() + body)
        return digest.hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def answer(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def words(self) -> list[str]:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            return path.strip("/").split("/")

        def allowed(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self.answer(401, {"error": "Invalid credentials"})
            return False

        def do_POST(self):
            words, body = self.words(), self.body()
            if words == ["api", "validate-yaml"]:
                return self.answer(200, {"errors": [], "warnings": []})
            if not self.allowed():
                return None
            if words == ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.files.setdefault(name, {})
                return self.answer(200, {"url": f"{hub.address}/{name}"})
            if words[-1] == "batch":
                objects = json.loads(body)["objects"]
                for one in objects:
                    one["actions"] = {"upload": {"href": f"{hub.address}/lfs/{one['oid']}"}}
                return self.answer(200, {"transfer": "basic", "objects": objects})
            name = "/".join(words[2:4])
            if words[4] == "preupload":
                paths = [file["path"] for file in json.loads(body)["files"]]
                mode = {True: "lfs", False: "regular"}
                files = [
                    {"path": path, "uploadMode": mode[path.endswith(".safetensors")], "shouldIgnore": False}
                    for path in paths
                ]
                return self.answer(200, {"files": files})
            assert words[4] == "commit", words
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[name][value["path"]] = hub.blobs[value["oid"]]
            commit = hub.commit_of(name)
            return self.answer(200, {"commitUrl": f"{hub.address}/{name}/commit/{commit}", "commitOid": commit})

        def do_PUT(self):
            _, oid = self.words()
            hub.blobs[oid] = self.body()
            assert hashlib.sha256(hub.blobs[oid]).hexdigest() == oid
            self.answer(200)

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            words = self.words()
            place = words[2:] if words[:2] == ["api", "models"] else words
            name = "/".join(place[:2])
            if name not in hub.files:
                return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            files, commit = hub.files[name], hub.commit_of(name)
            if words[0] == "api" and place[2:3] == ["tree"]:
                below = "".join(f"{folder}/" for folder in place[4:])
                tree = [
                    {"type": "file", "path": path, "size": len(body), "oid": oid(body)}
                    for path, body in files.items()
                    if path.startswith(below)
                ]
                if not tree:
                    return self.answer(404, {"error": "No such folder"}, X_Error_Code="EntryNotFound")
                return self.answer(200, tree)
            if words[0] == "api":
                return self.answer(
                    200, {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]}
                )
            assert place[2] == "resolve", words
            path = "/".join(place[4:])
            if path not in files:
                return self.answer(
                    404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit
                )
            return self.answer(200, files[path], X_Repo_Commit=commit, ETag=f'"{oid(files[path])}"')

    return Handler


def oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def standing_in(folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Within, ``huggingface_hub`` asks a stand-in, and its cache is in ``folder``."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings = {
        "ENDPOINT": hub.address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(folder / "cache"), "HF_HOME": str(folder), "HF_TOKEN_PATH": str(folder / "token"),
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
    }  # fmt: skip
    try:
        with monkeypatch.context() as patched:
            for name, value in settings.items():
                patched.setattr(constants, name, value)
            yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

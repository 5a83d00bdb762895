"""The Hugging Face Hub in miniature: the endpoints that huggingface_hub uses, as the real ones answer, on 127.0.0.1.

Small files come from the Hub itself; safetensors are "large files", which it redirects to another host, as the real
one does. Every request is remembered with the bytes that were sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_API = re.compile(
    r"/api/(?:models/)?(?P<id>(?:datasets/)?[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?"
)
_FILE = re.compile(r"/(?P<id>(?:datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_STORED = re.compile(r"/stored/(?P<id>(?:datasets/)?[^/]+/[^/]+)/(?P<commit>[^/]+)/(?P<name>.+)")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One that was answered."""

    method: str
    name: str
    """Of the file; the path for what is no file's."""
    range: str | None
    token: str | None
    is_stored: bool
    """At the host that large files are at."""
    sent: int
    """Bytes of the answer's body."""


@dataclass(kw_only=True)
class Hub:
    """What it has, how it behaves, and what was asked of it."""

    endpoint: str = ""
    storage: str = ""
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Model, or data set with "datasets/" before its name -> commit -> folder."""
    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Model -> branch or tag -> commit."""
    gated: set[str] = field(default_factory=set)
    has_ranges: bool = True
    told_size: int | None = None
    """What Content-Range says of every file's size, where that is a lie."""
    cut: int = 0
    """How many of the next answers with a part of a file end in the middle, with the connection."""
    page: bytes | None = None
    """What every request is answered with: a login page, say."""
    broken: int | None = None
    """The status that every request is answered with."""
    extra: dict[str, int] = field(default_factory=dict)
    """Files in every listing that are not there, with their sizes."""
    requests: list[Request] = field(default_factory=list)

    def publish(self, repo_id: str, folder: Path, *refs: str) -> str:
        """A model at a new commit, which `refs` and "main" are at from now on. Returns the commit."""
        commits = self.commits.setdefault(repo_id, {})
        commit = hashlib.sha1(f"{repo_id} {len(commits)}".encode()).hexdigest()
        commits[commit] = folder
        for ref in ("main", *refs):
            self.refs.setdefault(repo_id, {})[ref] = commit
        return commit

    def sent(self, suffix: str = "") -> int:
        """Bytes sent of files whose name ends so."""
        return sum(request.sent for request in self.requests if request.name.endswith(suffix))

    def asked(self, suffix: str) -> list[Request]:
        return [request for request in self.requests if request.name.endswith(suffix)]


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers until the end of the block."""
    hub = Hub()
    servers = [_Server(("127.0.0.1", 0), _handler(hub)) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers]
    ports = [server.server_address[1] for server in servers]
    hub.endpoint, hub.storage = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"  # another host
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has read enough hangs up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Answers):
        pass

    Handler.hub = hub
    return Handler


class _Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.hub.page is not None:
            self._answer(path, self.hub.page)
        elif self.hub.broken is not None:
            self._answer(path, b"", status=self.hub.broken)
        elif match := _STORED.fullmatch(path):
            self._file(match["name"], self.hub.commits[match["id"]][match["commit"]] / match["name"], {})
        elif match := _API.fullmatch(path):
            commit = self._commit(path, match["id"], match["revision"] or "main")
            if commit is not None:
                self._about(path, match["id"], commit, tree=match["what"] == "tree")
        elif match := _FILE.fullmatch(path):
            commit = self._commit(match["name"], match["id"], match["revision"])
            if commit is not None:
                self._resolve(match["id"], commit, match["name"])
        else:
            self._answer(path, b"", status=404)

    def _commit(self, name: str, repo_id: str, revision: str) -> str | None:
        commits, refs = self.hub.commits.get(repo_id), self.hub.refs.get(repo_id, {})
        if commits is None:  # the real one does not tell strangers whether a model is private or not there
            self._answer(name, b'{"error": "Repository not found"}', status=401, code="RepoNotFound")
            return None
        commit = refs.get(revision, revision)
        if commit not in commits:
            self._answer(name, b'{"error": "Invalid rev id"}', status=404, code="RevisionNotFound")
            return None
        return commit

    def _about(self, path: str, repo_id: str, commit: str, *, tree: bool) -> None:
        sizes = _sizes(self.hub.commits[repo_id][commit]) | self.hub.extra
        about: Any = {"id": repo_id, "sha": commit, "siblings": [{"rfilename": name} for name in sizes]}
        if tree:
            about = [
                {"type": "file", "path": name, "size": size, "oid": _oid(name.encode())} for name, size in sizes.items()
            ]
            for entry in about:
                if _is_large(entry["path"]):
                    entry["lfs"] = {"oid": "0" * 64, "size": entry["size"], "pointerSize": 134}
        self._answer(path, json.dumps(about).encode(), kind="application/json")

    def _resolve(self, repo_id: str, commit: str, name: str) -> None:
        path = self.hub.commits[repo_id][commit] / name
        if repo_id in self.hub.gated and name != "README.md":
            self._answer(name, b"Access to this model is restricted.", status=403, code="GatedRepo")
        elif not path.is_file():
            self._answer(name, b"", status=404, code="EntryNotFound")
        elif _is_large(name):
            data = path.read_bytes()
            headers = {
                "Location": f"{self.hub.storage}/stored/{repo_id}/{commit}/{name}",
                "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": commit,
            }
            self._answer(name, b"", status=302, headers=headers)
        else:
            self._file(name, path, {"X-Repo-Commit": commit, "ETag": f'"{_oid(path.read_bytes())}"'})

    def _file(self, name: str, path: Path, headers: dict[str, str]) -> None:
        data, wanted = path.read_bytes(), self.headers.get("Range")
        if wanted is None or not self.hub.has_ranges:
            self._answer(name, data, headers=headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        total = self.hub.told_size or len(data)
        headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{total}"}
        self._answer(name, data[start:stop], status=206, headers=headers)

    def _answer(
        self,
        name: str,
        body: bytes,
        *,
        status: int = 200,
        code: str | None = None,
        kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
    ) -> None:
        length = len(body)
        if status == 206 and self.hub.cut:
            self.hub.cut -= 1
            body, self.close_connection = body[: len(body) // 2], True
        sent = 0 if self.command == "HEAD" else len(body)
        self.hub.requests.append(
            Request(
                method=self.command,
                name=name,
                range=self.headers.get("Range"),
                token=self.headers.get("Authorization"),
                is_stored=self.path.startswith("/stored/"),
                sent=sent,
            )
        )
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if sent:
            try:
                self.wfile.write(body)
            except ConnectionError:  # the client had read enough
                self.close_connection = True


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()

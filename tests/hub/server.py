"""Stand-in for Hugging Face's hub: the routes that huggingface_hub calls to push, tag and pull a model."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class Hub:
    """All repositories. A commit is a mapping of names to contents.

    Args:
        denied: answer every change with status 403.
        fail_after: number of changes until the connection fails; None for never.
    """

    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    denied: bool = False
    fail_after: int | None = None
    address: str = ""

    def change(self) -> Response | None:
        """Refuse a change, if this is the time."""
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                return JSONResponse({"error": "broken"}, 400)  # the client repeats a request after 500
        return JSONResponse({"error": "no write access"}, 403) if self.denied else None

    def repo(self, request: Request) -> dict[str, Any] | None:
        return self.repos.get(f"{request.path_params['org']}/{request.path_params['name']}")

    def commit_of(self, repo: dict[str, Any], revision: str) -> str | None:
        found = repo["branches"] | repo["tags"]
        return found.get(revision, revision if revision in repo["commits"] else None)

    async def create(self, request: Request) -> Response:
        name = "/".join(filter(None, [(body := await request.json()).get("organization"), body["name"]]))
        if refused := self.change():
            return refused
        if name in self.repos:
            return JSONResponse({"error": "exists", "url": f"{self.address}/{name}"}, 409)
        self.repos[name] = {"commits": {"0" * 40: {}}, "branches": {"main": "0" * 40}, "tags": {}}
        return JSONResponse({"url": f"{self.address}/{name}", "name": name, "id": name})

    async def refs(self, request: Request) -> Response:
        repo = self.repo(request)
        if repo is None:
            return missing("RepoNotFound", 404)
        rows = {
            kind: [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in repo[kind].items()]
            for kind in ("branches", "tags")
        }
        return JSONResponse({**rows, "converts": []})

    async def preupload(self, request: Request) -> Response:
        files = (await request.json())["files"]
        modes = [
            {"path": f["path"], "shouldIgnore": False, "oid": None,
             "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
            for f in files
        ]  # fmt: skip
        return JSONResponse({"files": modes})

    async def batch(self, request: Request) -> Response:
        objects = (await request.json())["objects"]
        rows = [
            {"oid": o["oid"], "size": o["size"],
             "actions": {"upload": {"href": f"{self.address}/upload/{o['oid']}", "header": {}}}}
            for o in objects
        ]  # fmt: skip
        return JSONResponse({"transfer": "basic", "objects": rows}, media_type="application/vnd.git-lfs+json")

    async def upload(self, request: Request) -> Response:
        content = await request.body()
        if refused := self.change():
            return refused
        self.objects[hashlib.sha256(content).hexdigest()] = content
        return Response()

    async def commit(self, request: Request) -> Response:
        repo = self.repo(request)
        assert repo is not None
        if refused := self.change():
            return refused
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        files = dict(repo["commits"][repo["branches"]["main"]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        new = hashlib.sha1(repr((len(repo["commits"]), sorted(files.items()))).encode()).hexdigest()
        repo["commits"][new] = files
        repo["branches"]["main"] = new
        url = f"{self.address}/{request.path_params['org']}/{request.path_params['name']}/commit/{new}"
        return JSONResponse({"success": True, "commitOid": new, "commitUrl": url, "hookOutput": ""})

    async def add_tag(self, request: Request) -> Response:
        repo, tag = self.repo(request), (await request.json())["tag"]
        assert repo is not None
        if refused := self.change():
            return refused
        if tag in repo["tags"]:
            return JSONResponse({"error": "exists"}, 409)
        found = self.commit_of(repo, request.path_params["revision"])
        if found is None:
            return missing("RevisionNotFound", 404)
        repo["tags"][tag] = found
        return JSONResponse({})

    async def remove_tag(self, request: Request) -> Response:
        repo = self.repo(request)
        assert repo is not None
        if refused := self.change():
            return refused
        del repo["tags"][request.path_params["revision"]]
        return JSONResponse({})

    async def resolve(self, request: Request) -> Response:
        repo = self.repo(request)
        if repo is None:
            return missing("RepoNotFound", 404)
        commit = self.commit_of(repo, request.path_params["revision"])
        if commit is None:
            return missing("RevisionNotFound", 404)
        content = repo["commits"][commit].get(request.path_params["path"])
        if content is None:
            return missing("EntryNotFound", 404, commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return Response(content, headers=headers)

    async def validate(self, request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    def app(self) -> Starlette:
        repo = "/api/models/{org}/{name}"
        return Starlette(
            routes=[
                Route("/api/repos/create", self.create, methods=["POST"]),
                Route("/api/validate-yaml", self.validate, methods=["POST"]),
                Route(f"{repo}/refs", self.refs),
                Route(f"{repo}/preupload/{{revision}}", self.preupload, methods=["POST"]),
                Route(f"{repo}/commit/{{revision}}", self.commit, methods=["POST"]),
                Route(f"{repo}/tag/{{revision}}", self.add_tag, methods=["POST"]),
                Route(f"{repo}/tag/{{revision}}", self.remove_tag, methods=["DELETE"]),
                Route("/{org}/{name}.git/info/lfs/objects/batch", self.batch, methods=["POST"]),
                Route("/upload/{oid}", self.upload, methods=["PUT"]),
                Route("/{org}/{name}/resolve/{revision}/{path:path}", self.resolve, methods=["GET", "HEAD"]),
            ]
        )


def missing(code: str, status: int, commit: str = "") -> Response:
    headers = {"X-Error-Code": code, "X-Error-Message": "not found"} | ({"X-Repo-Commit": commit} if commit else {})
    return JSONResponse({"error": "not found"}, status, headers=headers)


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve until the end of the block."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    hub.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(hub.app(), log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()

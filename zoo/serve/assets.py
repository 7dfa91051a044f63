"""Files of the page, read into memory at the start: no path of a request reaches the file system."""

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

INDEX = "index.html"
FOLDER = "page"


@dataclass(frozen=True)
class Asset:
    """A file of the page."""

    content: bytes
    kind: str

    @property
    def etag(self) -> str:
        """Digest of the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def read_assets() -> dict[str, Asset]:
    """Read `zoo/serve/page`: path in a request -> file; the index is at `/`."""
    found: dict[str, Asset] = {}

    def read(folder: Any, prefix: str) -> None:
        for each in folder.iterdir():
            if each.is_dir():
                read(each, f"{prefix}{each.name}/")
            elif not each.name.startswith((".", "_")) and not each.name.endswith(".py"):
                kind = mimetypes.guess_type(each.name)[0] or "application/octet-stream"
                text = kind.startswith("text/") or kind.endswith(("javascript", "json"))
                path = "/" if prefix + each.name == f"/{FOLDER}/{INDEX}" else prefix + each.name
                found[path] = Asset(each.read_bytes(), f"{kind}; charset=utf-8" if text else kind)

    page = resources.files("zoo.serve") / FOLDER
    if page.is_dir():
        read(page, f"/{FOLDER}/")
    return found


def serve_asset(assets: dict[str, Asset], request: Request) -> Response | None:
    """The file of a request, or None."""
    asset = assets.get(request.url.path)
    if asset is None or request.method not in ("GET", "HEAD"):
        return None
    headers = {"etag": asset.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.kind, headers=headers)

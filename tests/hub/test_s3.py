"""A store in S3: moto's server stands for it, and s3fs is the client.

Needs `pip install s3fs "moto[server]"`.
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch

import zoo
from tests.hub.test_store import contents, version
from zoo.hub.address import open_repository
from zoo.hub.publish import listing, move_tag, pull, push
from zoo.hub.store import FolderRepository, backup, restore


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"models-{uuid4().hex}"  # the buckets of moto outlive its server
    fsspec.filesystem("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}/store"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def test_a_model_goes_to_s3_and_back(run: Path, bucket: str, tmp_path: Path) -> None:
    address = f"{bucket}/ae-moons"
    first, second = push(run, address, tags=["production"]), push(run, address, half=True)
    assert push(run, address).version == first.version, "a version that exists is not written again"
    repository = open_repository(address)
    assert repository.versions() == {first.version: first, second.version: second}
    move_tag(f"{address}@{second.version[:9]}", "production")
    assert pull(f"{address}@production", tmp_path / "half")[1] == second
    move_tag(f"{address}@{first.version[:9]}", "production")
    folder, pulled = pull(f"{address}@production", tmp_path / "out")
    assert pulled == first
    weights, wanted = zoo.load(folder).state_dict(), zoo.load(run).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in wanted.items())
    assert any(first.version[:12] in line for line in listing(bucket, 1))


def test_a_damaged_file_is_named_and_a_backup_brings_it_back(bucket: str, tmp_path: Path) -> None:
    found = version(tmp_path / "v", b"weights")
    FolderRepository(f"{bucket}/m").push(tmp_path / "v", found)
    before = contents(bucket)
    assert backup(bucket, tmp_path / "all.tar") == len(before)
    files, root = fsspec.core.url_to_fs(bucket)
    (path,) = [name for name in before if before[name] == b"weights"]
    files.pipe_file(f"{root}{path}", b"weightz")
    with pytest.raises(zoo.CheckpointError):
        pull(f"{bucket}/m", tmp_path / "damaged")
    files.rm(root, recursive=True)
    files.invalidate_cache()
    assert restore(tmp_path / "all.tar", bucket) == len(before)
    files.invalidate_cache()
    assert contents(bucket) == before
    assert pull(f"{bucket}/m", tmp_path / "out")[1] == found

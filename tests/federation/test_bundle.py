"""The bundle holds no code, is the same everywhere, and nothing else passes a site."""

import io
import re
import subprocess
import sys
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from esn_client.link.bundle import check_bundle
from esn_core.errors import ProtocolError
from esn_server.link import bundle as server_bundle
from esn_server.link.bundle import build_bundle, bundle_sha256


def agree(content: bytes) -> None:
    """Check a bundle whose hash the site has agreed to."""
    check_bundle(content, allowed_sha256=frozenset({sha256(content).hexdigest()}))


def changed(**files: str | bytes) -> bytes:
    """Return the bundle with files added or replaced."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(build_bundle())) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        contents = {name: old.read(name) for name in old.namelist()} | files
        for name, content in contents.items():
            new.writestr(name, content)
    return buffer.getvalue()


def test_the_bundle_of_this_version_passes():
    agree(build_bundle())


def test_the_bundle_does_not_depend_on_the_files_dates_or_modes(tmp_path, monkeypatch):
    before = bundle_sha256()
    for name in server_bundle._FILES:
        copy = tmp_path / name
        copy.write_bytes((server_bundle._DIRECTORY / name).read_bytes())
        copy.chmod(0o600)
    monkeypatch.setattr(server_bundle, "_DIRECTORY", tmp_path)
    assert bundle_sha256() == before


def test_every_file_is_stored_as_it_is():
    with zipfile.ZipFile(io.BytesIO(build_bundle())) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        settings = tomllib.loads(archive.read("pyproject.toml").decode())
        manifest = archive.read(".info/CONTENT").decode().splitlines()
        assert manifest == [
            f"{name},{sha256(archive.read(name)).hexdigest()},{8 * len(archive.read(name))}"
            for name in ("pyproject.toml", "LICENSE", "README.md")
        ]
    assert settings["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "esn_server.app:app",
        "clientapp": "esn_client.app:app",
    }


def test_an_unknown_hash_is_refused_before_anything_else_is_looked_at():
    with pytest.raises(ProtocolError, match=f"{sha256(b'no zip').hexdigest()} is not one"):
        check_bundle(b"no zip", allowed_sha256=frozenset({bundle_sha256()}))


@pytest.mark.parametrize(
    "name",
    [
        "esn_client/app.py",
        "sub/pyproject.toml",
        "run.sh",
        "lib.so",
        "evil.pth",
        "../README.md",
        "/LICENSE",
        "README.md/",
    ],
)
def test_a_file_beside_the_expected_ones_is_refused(name):
    with pytest.raises(ProtocolError, match="holds files beside") as refusal:
        agree(changed(**{name: "x"}))
    assert name not in str(refusal.value).partition("beside")[0]


def test_two_files_of_one_name_are_refused():
    buffer = io.BytesIO(build_bundle())
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("README.md", "another")
    with pytest.raises(ProtocolError, match="holds files beside"):
        agree(buffer.getvalue())


def test_a_file_that_unpacks_to_too_much_is_refused():
    with pytest.raises(ProtocolError, match="more than 65536 bytes"):
        agree(changed(**{"README.md": b"\0" * 10_000_000}))


def test_a_file_that_lies_about_its_size_is_refused():
    content = changed(**{"pyproject.toml": b"\0" * 10_000_000})
    honest, lie = (10_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    with pytest.raises(ProtocolError, match="is no Flower app bundle"):
        agree(content.replace(honest, lie))


def test_a_bundle_that_is_too_large_is_refused():
    with pytest.raises(ProtocolError, match="at most 262144"):
        agree(build_bundle() + bytes(300_000))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(content):
    with pytest.raises(ProtocolError, match="is no Flower app bundle"):
        agree(content)


@pytest.mark.parametrize("settings", [b"\xff", b"= 1", b"tool = 1", b"[tool.flwr.app]\ncomponents = 2"])
def test_settings_that_name_no_apps_are_refused(settings):
    with pytest.raises(ProtocolError, match=re.compile("is no Flower app bundle|names other apps")):
        agree(changed(**{"pyproject.toml": settings}))


def test_other_apps_than_the_installed_ones_are_refused():
    settings = (server_bundle._DIRECTORY / "pyproject.toml").read_text()
    with pytest.raises(ProtocolError, match="names other apps"):
        agree(changed(**{"pyproject.toml": settings.replace("esn_client.app:app", "os:app")}))


@pytest.mark.slow
def test_the_wheel_carries_the_bundle_that_deploy_shows(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        for name in server_bundle._FILES:
            in_wheel = wheel.read(f"esn_server/link/flower_app/{name}")
            assert in_wheel == (root / "deploy" / "flower-app" / name).read_bytes()

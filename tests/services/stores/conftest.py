"""Services for a session, with knobs and settings as they were for each test."""

import os

import pytest

from tests.services.stores import clouds, servers

os.environ |= clouds.FOR_GCSFS


def pytest_ignore_collect(collection_path, config):
    """Import no test that is not to run, as it may need a package that only these tests need."""
    unwanted = "not stores" in config.option.markexpr and collection_path.name.startswith("test_")
    return True if unwanted else None


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """The services, started once for all tests of a process."""
    folder = tmp_path_factory.mktemp("services")
    try:
        yield servers.start(folder)
    finally:
        servers.stop(folder)


@pytest.fixture
def services(running, tmp_path, monkeypatch):
    """The services without faults, and an environment without credentials."""
    running.set()
    for name in [name for name in os.environ if name.startswith(clouds.PREFIXES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of the developer
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    yield running
    running.set()


@pytest.fixture(scope="session")
def started(running):
    """A function that starts a cloud once for all tests of a process, and returns it."""
    found = {}

    def start(name):
        if name not in found:
            found[name] = clouds.START[name](running)
        return found[name]

    return start


@pytest.fixture(params=list(clouds.START))
def cloud(request, services, started):
    """Each of the clouds, without faults, and an environment without credentials."""
    return started(request.param)

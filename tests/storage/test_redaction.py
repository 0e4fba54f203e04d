"""Secrets planted in addresses, options and errors, which no text may show."""

import pytest
from zarr.storage import FsspecStore

from rainbear_dask.redaction import reason, safe_cause, secrets_of, without_secrets


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("s3://key:secret@bucket/x?sig=abc", "s3://bucket/x"),
        ("s3://key:se/cr+et@bucket/x", "s3://bucket/x"),
        ("simplecache::s3://key:secret@bucket/x", "simplecache::s3://bucket/x"),
        ("https://host:8080/a@b/x.zarr#frag", "https://host:8080/a@b/x.zarr"),
        ("/data/odd?name@x#1.zarr", "/data/odd?name@x#1.zarr"),
    ],
)
def test_a_label_is_the_address_without_credentials(address, label):
    assert without_secrets(address) == label


def test_secrets_are_what_options_hold_but_for_addresses_and_names_too_short_to_tell():
    options = {
        "key": "AKIAPLANTED",
        "client_kwargs": {
            "endpoint_url": "http://127.0.0.1:9000",
            "region_name": "eu-west-1",
            "auth": ["hunter2secret"],
        },
        "token": b"bytesPLANTED",
        "anon": False,
        "ssl": "yes",
    }

    assert secrets_of("s3://bucket/x", options) == ["hunter2secret", "bytesPLANTED", "AKIAPLANTED"]


def test_secrets_of_an_address_are_user_and_password_alone_and_together():
    actual = secrets_of("https://someone:hunter2secret@host/x", {})

    assert actual == ["someone:hunter2secret", "hunter2secret", "someone"]


def test_secrets_of_a_store_are_those_of_its_file_system():
    options = {"headers": {"Authorization": "hunter2secret"}}
    store = FsspecStore.from_url("http://127.0.0.1:9/x", storage_options=options)

    assert secrets_of(store, {}) == ["hunter2secret"]


def test_a_reason_is_one_line_of_bounded_length_without_secrets():
    err = OSError("GET https://me:hunter2secret@host/x?sig=1 failed\n  for hunter2secret." + "x" * 1000)

    actual = reason(err, ["hunter2secret"])

    assert actual.startswith("OSError: GET https://host/x failed for ***.xxx")
    assert len(actual) == len("OSError: ") + 300
    assert reason(KeyError()) == "KeyError"


def test_an_error_is_shown_as_the_cause_only_if_it_holds_no_secret():
    clean, telling = OSError("no route"), OSError("no route for hunter2secret")

    assert safe_cause(clean, ["hunter2secret"]) is clean
    assert safe_cause(telling, ["hunter2secret"]) is None


def test_what_a_server_answers_is_kept_but_for_what_names_a_key():
    answer = (
        '403: "<Error><Code>SignatureDoesNotMatch</Code><Message>No AKIAPLANTED</Message>'
        "<AWSAccessKeyId>AKIAPLANTED</AWSAccessKeyId><StringToSign>AWS4\n2020/AKIAPLANTED</StringToSign>"
        '<HostId>7</HostId></Error>"'
    )

    assert without_secrets(answer) == '403: "<Error><Code>SignatureDoesNotMatch</Code><HostId>7</HostId></Error>"'
    assert without_secrets(answer[:80]) == '403: "<Error><Code>SignatureDoesNotMatch</Code>'
    assert without_secrets('Error { code: "ExpiredToken", message: "of \\"AKIAPLANTED\\"" }') == (
        'Error { code: "ExpiredToken" }'
    )


def test_of_a_header_the_value_alone_is_a_secret_too():
    assert secrets_of("http://host/x", {"headers": {"Authorization": "Bearer hunter2secret"}}) == [
        "Bearer hunter2secret",
        "hunter2secret",
    ]

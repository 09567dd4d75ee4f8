# SPDX-License-Identifier: Apache-2.0
import stat

import pytest

from skerry.cli.settings import Settings, choose_target, load_settings, save_settings, settings_path
from skerry.effects.disk import DiskFiles
from skerry.errors import ConfigError, HubNotChosen

KEPT = Settings(hub="https://a.test", token="kept", ca="/ca.pem")


def chosen(environ=None, settings=KEPT, *, hub=None, token=None, ca=None):
    target = choose_target(environ or {}, settings, hub=hub, token=token, ca=ca)
    return target.hub, target.token, target.ca


@pytest.mark.parametrize(
    "address",
    [
        "x",
        "127.0.0.1:8443",
        "http://",
        "ftp://hub",
        "http://a b",
        "http://[::1",
        "http://h:99999",
        "http://h\n",
        "http://hüb",
    ],
)
def test_what_is_no_address_is_said_before_anything_is_sent(shell, address):
    ran = shell(f'get devices --hub "{address}"')
    assert ran.code == 2
    assert "is no address; write https://HOST:PORT" in ran.err
    assert shell.hub.calls == []


def test_flags_beat_the_environment_and_that_beats_the_file():
    environ = {"SKERRY_HUB": "https://b.test", "SKERRY_TOKEN": "env"}
    assert chosen(environ, hub="https://c.test/", token="flag") == ("https://c.test", "flag", "")
    assert chosen(environ) == ("https://b.test", "env", "")
    assert chosen() == ("https://a.test", "kept", "/ca.pem")


def test_a_remembered_token_never_goes_to_another_hub():
    assert chosen(hub="https://evil.test") == ("https://evil.test", "", "")
    assert chosen({"SKERRY_HUB": "https://evil.test"}) == ("https://evil.test", "", "")
    assert chosen(hub="https://a.test/") == ("https://a.test", "kept", "/ca.pem")


def test_no_hub_at_all():
    with pytest.raises(HubNotChosen):
        chosen(settings=Settings())


def test_the_file_is_for_the_owner_alone(tmp_path):
    path = tmp_path / "deep" / "config.json"
    save_settings(DiskFiles(), path, KEPT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_settings(DiskFiles(), path) == KEPT


def test_no_file_is_no_settings(tmp_path):
    assert load_settings(DiskFiles(), tmp_path / "none") == Settings()


@pytest.mark.parametrize("content", [b"{", b'{"hubb": "x"}', b"[]"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_settings(DiskFiles(), path)


def test_where_the_file_is():
    assert str(settings_path({"HOME": "/home/x"})) == "/home/x/.config/skerry/config.json"
    assert str(settings_path({"HOME": "/home/x", "XDG_CONFIG_HOME": "/cfg"})) == "/cfg/skerry/config.json"
    assert str(settings_path({"SKERRY_CONFIG": "/etc/s.json"})) == "/etc/s.json"

# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from skerry.cli.settings import Settings
from skerry.cli.up import Greeting, find_trust, make_demo_trust, online_passphrase
from skerry.effects.disk import DiskFiles
from skerry.errors import ConfigError
from skerry.trust.online import OnlineTrust
from skerry.wire.v1.operator import Role, UserToken
from unit.cli.scripted import NOW

ADMIN = UserToken(name="admin", role=Role.ADMIN, token="t0k")
URL = "http://127.0.0.1:8443"


@pytest.fixture
def greeting(shell):
    return Greeting(world=shell.world, ca="", keys=None, remember=True)


def test_the_first_start_shows_the_token_once_and_remembers_it(greeting, shell, capsys):
    greeting.admin(ADMIN)
    greeting.as_text(URL)
    out = capsys.readouterr().out
    assert out.count("t0k") == 1
    assert f"hub ready at {URL}" in out
    assert shell.world.settings() == Settings(hub=URL, token="t0k")


def test_a_later_start_has_no_token_to_show(greeting, shell, capsys):
    greeting.as_text(URL)
    assert "token" not in capsys.readouterr().out
    assert shell.world.settings() == Settings()


def test_a_login_to_another_hub_is_not_overwritten(greeting, shell, capsys):
    shell.world.remember(Settings(hub="https://other.example", token="theirs"))
    greeting.admin(ADMIN)
    greeting.as_text(URL)
    assert f"skerry login {URL}" in capsys.readouterr().out
    assert shell.world.settings().token == "theirs"


@pytest.mark.parametrize("config", ["/proc/none/config.json", "damaged.json"])
def test_a_home_that_cannot_be_written_neither_loses_the_token_nor_stops_the_hub(
    greeting, shell, capsys, monkeypatch, tmp_path, config
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.json").write_text("{")
    shell.environ["SKERRY_CONFIG"] = config
    greeting.admin(ADMIN)
    greeting.as_json(URL)
    greeting.as_text(URL)
    ran = capsys.readouterr()
    assert '"admin_token": "t0k", "remembered": false' in ran.out
    assert f"skerry login {URL}" in ran.out
    assert config in ran.err


def test_json_for_scripts(greeting, capsys):
    greeting.remember = False
    greeting.admin(ADMIN)
    greeting.as_json(URL)
    assert json.loads(capsys.readouterr().out) == {
        "url": URL,
        "admin_token": "t0k",
        "remembered": False,
        "demo_keys": None,
    }


def test_demo_keys_are_made_once_and_get_further_lines(shell, tmp_path):
    make_demo_trust(shell.world, tmp_path, ("paint",))
    first = (tmp_path / "root-1.pem").read_bytes()
    make_demo_trust(shell.world, tmp_path, ("paint", "weld"))
    assert (tmp_path / "root-1.pem").read_bytes() == first
    trust = OnlineTrust.load(find_trust(tmp_path), passphrase=None, files=DiskFiles(), now=NOW)
    assert trust.demo
    assert trust.lines == ("paint", "weld")


@pytest.mark.parametrize("online", [{}, {"SKERRY_ONLINE_KEY_PASSPHRASE": "hub"}])
def test_the_passphrase_of_keys_init_opens_what_it_made(shell, tmp_path, online):
    shell.environ |= {"SKERRY_KEY_PASSPHRASE": "offline", **online}
    assert shell(f"keys init --dir {tmp_path / 'keys'} --line weld").code == 0
    folder = find_trust(tmp_path / "keys")
    secret = online_passphrase(shell.world, folder)
    assert OnlineTrust.load(folder, passphrase=secret, files=DiskFiles(), now=NOW).lines == ("weld",)


def test_no_keys_is_a_usage_error_with_the_way_out(shell):
    ran = shell("up")
    assert ran.code == 2
    assert "skerry keys init" in ran.err
    assert "--demo-trust" in ran.err


def test_the_online_part_is_found_from_above(tmp_path):
    with pytest.raises(ConfigError, match=r"trust\.json"):
        find_trust(tmp_path)
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "trust.json").write_text("{}")
    assert find_trust(tmp_path) == find_trust(tmp_path / "online") == tmp_path / "online"

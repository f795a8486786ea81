"""plugins.toml: whatever is wrong in it is one line that names the file and the field, with a close match."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.config import Config, config_path, load_config
from paravirt.errors import ConfigError


def problem(tmp_path: Path, text: str) -> str:
    path = tmp_path / "plugins.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(("text", "expected"), [
    ('[[backend]]\nname = "native\n', "line 2"),
    ('[[backend]]\nname = "x"\nplugni = "y"\n', "backend.0.plugni: unknown; did you mean 'plugin'?"),
    ('defualt = "auto"\n', "defualt: unknown; did you mean 'default'?"),
    ('[[backend]]\nplugin = "x"\n', "backend.0.name: field required"),
    ('[[backend]]\nname = 7\n', "backend.0.name: input should be a valid string"),
    ('[[backend]]\nname = ""\n', "backend.0.name: must not be empty"),
    ('[[backend]]\nname = "x"\nenabled = "perhaps"\n', "backend.0.enabled"),
    ('[[backend]]\nname = "x"\n[[backend]]\nname = "x"\n', "backend 'x' has more than one row"),
    ('default = "nativ"\n[[backend]]\nname = "native"\n', "default: no backend 'nativ'; did you mean 'native'?"),
])
def test_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problem(tmp_path, text)


def test_all_wrong_fields_are_named(tmp_path: Path) -> None:
    message = problem(tmp_path, 'colour = 1\n[[backend]]\nname = 1\n')
    assert "colour" in message and "backend.0.name" in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_the_file_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert config_path(tmp_path / "mine.toml") == tmp_path / "mine.toml"
    assert config_path().parent.name == "data", "the copy in the package"
    user = tmp_path / "config" / "paravirt"
    user.mkdir(parents=True)
    (user / "plugins.toml").write_text("")
    assert config_path() == user / "plugins.toml"
    (tmp_path / "plugins.toml").write_text("")
    assert config_path() == tmp_path / "plugins.toml"


def test_the_project_s_own_file() -> None:
    config = load_config(Path(__file__).resolve().parent.parent / "plugins.toml")
    assert [row.name for row in config.backend] == ["native", "xen", "vmi"]


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_one_message(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        assert str(path) in str(error)

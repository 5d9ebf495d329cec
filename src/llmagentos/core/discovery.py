"""Where the server is and with what credential to speak to it: one rule for CLI, SDK and programs.

The first that is found counts:

1. `LLMAGENTOS_SERVER` with `LLMAGENTOS_TOKEN` or `LLMAGENTOS_TOKEN_FILE`
2. `credentials.json` in the state directory that `LLMAGENTOS_STATE` names
3. `.llmagentos/credentials.json` in the working directory or a directory above it
4. `llmagentos/credentials.json` in `$XDG_CONFIG_HOME` (or `~/.config`), written by `llmctl login` and `llmctl up`

`LLMAGENTOS_CA` names the CAs (PEM) of server and modules, whichever is found.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from llmagentos.core.addresses import is_server
from llmagentos.core.errors import ConfigError, Unavailable
from llmagentos.core.files import write_whole

if TYPE_CHECKING:
    import ssl

STATE_DIRECTORY: Final = ".llmagentos"
CREDENTIALS: Final = "credentials.json"


class NoServer(Unavailable):
    """No server is known to this user in this directory."""

    code = "no_server"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A server's origin (`http://127.0.0.1:7080`), the bearer token for it, and the CA that signed its certificate."""

    server: str
    token: str = field(repr=False)
    ca: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """The context that trusts `ca`; None without one (then the machine's own trust store counts)."""
        if self.ca is None:
            return None
        import ssl

        try:
            context = ssl.create_default_context(cafile=str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{self.ca}: not a readable CA certificate: {error}") from None
        # The file may be the server's own certificate rather than its CA's: that is trust enough.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context


class _File(msgspec.Struct, frozen=True):
    server: str
    token: str
    ca: str | None = None


def discover(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Credentials:
    """The credentials to use. Raises `NoServer` when there are none, `ConfigError` for ones that cannot be read."""
    env = os.environ if environ is None else environ
    if server := env.get("LLMAGENTOS_SERVER"):
        return _from_environment(server, env)
    for path in _candidates(env, directory or Path.cwd()):
        if path.is_file():
            found = read(path)
            return replace(found, ca=ca) if (ca := _ca(env)) is not None else found
    raise NoServer(
        "no LLMAgentOS server is known here",
        hint="start one with `llmctl up`, or log in to a running one with `llmctl login URL`",
    )


def read(path: Path) -> Credentials:
    """The credentials in the file `path`. Raises `ConfigError`."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", hint="run as the user who started it") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not a credentials file: {error}", hint="delete it and `llmctl login URL` again"
        ) from None
    _check(str(path), found.server, found.token)
    return Credentials(found.server, found.token, Path(found.ca) if found.ca else None)


def write(path: Path, credentials: Credentials) -> None:
    """Put `credentials` in the file `path`, readable by its owner only, in one step."""
    ca = str(credentials.ca.resolve()) if credentials.ca else None
    content = msgspec.json.format(msgspec.json.encode(_File(credentials.server, credentials.token, ca)), indent=2)
    write_whole(path, content + b"\n")


def user_file(environ: Mapping[str, str] | None = None) -> Path:
    """The credentials file of this user, outside any project."""
    env = os.environ if environ is None else environ
    root = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME") or Path.home()) / ".config")
    return Path(root) / "llmagentos" / CREDENTIALS


def state_of(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Path:
    """The state directory that commands work on by default: LLMAGENTOS_STATE, else the nearest `.llmagentos` upwards.

    Without either it is `.llmagentos` in the working directory.
    """
    env = os.environ if environ is None else environ
    if named := env.get("LLMAGENTOS_STATE"):
        return Path(named).absolute()
    here = (directory or Path.cwd()).absolute()
    for parent in (here, *here.parents):
        if (parent / STATE_DIRECTORY).is_dir():
            return parent / STATE_DIRECTORY
    return here / STATE_DIRECTORY


def _ca(env: Mapping[str, str]) -> Path | None:
    return Path(named) if (named := env.get("LLMAGENTOS_CA")) else None


def _from_environment(server: str, env: Mapping[str, str]) -> Credentials:
    if (token := env.get("LLMAGENTOS_TOKEN", "").strip()) == "":
        if not (file := env.get("LLMAGENTOS_TOKEN_FILE")):
            raise NoServer(
                f"LLMAGENTOS_SERVER is {server!r} but there is no token for it",
                hint="set LLMAGENTOS_TOKEN_FILE (better) or LLMAGENTOS_TOKEN",
            )
        token = read_secret(Path(file))
    _check("the environment", server, token)
    return Credentials(server, token, _ca(env))


def _check(where: str, server: str, token: str) -> None:
    """Raises `ConfigError` for what no request could be made with."""
    if not is_server(server):
        raise ConfigError(
            f"{where}: {server!r} is not the address of a server", hint="for example http://127.0.0.1:7080"
        )
    if not token.isascii() or not token.isprintable():
        raise ConfigError(f"{where}: the token for {server} has characters that no token has")


def read_secret(path: Path) -> str:
    """The one line in a secret's file, without surrounding blanks. Raises `ConfigError`."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(65_536).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the secret cannot be read: {error}") from None
    if not text or "\n" in text:
        raise ConfigError(f"{path}: expected one line that holds the secret")
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: anyone may write to this secret's file", hint=f"chmod 600 {path}")
    return text


def _candidates(env: Mapping[str, str], directory: Path) -> Iterator[Path]:
    if state := env.get("LLMAGENTOS_STATE"):
        yield Path(state) / CREDENTIALS
        return  # a named state that is not there must not fall through to some other server
    here = directory.absolute()
    for parent in (here, *here.parents):
        yield parent / STATE_DIRECTORY / CREDENTIALS
    yield user_file(env)

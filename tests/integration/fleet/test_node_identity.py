"""Nodes' keys and certificates: proven, renewed, revoked at once, and two machines with one identity told apart."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import shutil
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.nodes import Cloned, NodeRevoked, Superseded
from llmagentos.api.tokens import NewToken, TokenInfo, TokenRequest
from llmagentos.core import discovery
from llmagentos.core.errors import Conflict, Unauthenticated, Unavailable
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.session import Session
from llmagentos.fleet.node.state import Identity, NodeDirectory
from support.node import Key, NodeProcess, join_request
from support.server import ServerProcess, eventually

pytestmark = pytest.mark.anyio


async def beat(server: ServerProcess, token: str) -> None:
    async with server.client(token) as client:
        await nodes.beat(client, nodes.Heartbeat())


async def test_a_proof_works_once_and_gives_a_token(server, tmp_path: Path):
    async with server.client() as admin:
        key = await Key.join(server, admin, "n1", tmp_path)
        proof = key.assertion()
        async with server.client(proof) as client:
            made = await nodes.exchange(client)
            assert made.token.startswith("lao_node_")
            assert made.expires_in == 3600
            await beat(server, made.token)
            with pytest.raises(Superseded):
                await nodes.exchange(client)
        with pytest.raises(Superseded):
            await key.exchange(server, counter=1)
        shown = await nodes.show(admin, "n1")
        assert shown.summary.trouble is not None, "people see it"
        assert shown.certificate is not None
        assert shown.certificate.serial == key.credential.serial
        assert 29 * 86_400 < shown.certificate.expires - time.time() < 31 * 86_400


async def test_of_two_copies_the_one_that_is_there_stays(server, tmp_path: Path):
    async with server.client() as admin:
        key = await Key.join(server, admin, "n1", tmp_path)
        await beat(server, await key.exchange(server))
        with pytest.raises(Cloned) as caught:
            await key.exchange(server, place="copy", counter=100)
        assert caught.value.details["retry_after"] > 0
        await beat(server, await key.exchange(server, counter=2))
        assert "another machine" in str((await nodes.show(admin, "n1")).summary.trouble)


async def test_a_clock_that_is_off_is_told_the_time(server, tmp_path: Path):
    async with server.client() as admin:
        key = await Key.join(server, admin, "n1", tmp_path)
        with pytest.raises(Unauthenticated) as caught:
            await key.exchange(server, off=7200)
        assert abs(float(caught.value.details["time"]) - time.time()) < 60


async def test_revoking_ends_tokens_certificates_and_module_tokens_at_once(server, tmp_path: Path):
    async with server.client() as admin:
        key = await Key.join(server, admin, "n1", tmp_path)
        token = await key.exchange(server)
        await nodes.allow(admin, "n1", "*")
        async with server.client(token) as client:
            module = await nodes.module_token(client, "shop")
        assert (await nodes.act(admin, "n1", "revoke")).state == "revoked"
        for dead in (token, module):
            with pytest.raises(Unauthenticated):
                await beat(server, dead)
        with pytest.raises(NodeRevoked):
            await key.exchange(server)
        await nodes.label(admin, "n1", {"env": "prod"})
        again = await Key.join(server, admin, "n1", tmp_path)
        await beat(server, await again.exchange(server))
        shown = (await nodes.show(admin, "n1")).summary
        assert (shown.state, shown.labels) == ("ready", {"env": "prod"}), "it may join again under its name"
        with pytest.raises(NodeRevoked):
            await key.exchange(server)


async def test_a_renewed_certificate_takes_over_when_it_is_used(server, tmp_path: Path):
    async with server.client() as admin:
        key = await Key.join(server, admin, "n1", tmp_path)
        token = await key.exchange(server)
        new = keys.generate()
        async with server.client(token) as client:
            certificate = await nodes.renew_certificate(client, keys.request(new, "n1"))
        await key.exchange(server)  # the answer may have been lost: the old one still counts
        (tmp_path / "new.pem").write_bytes(keys.pem(new, certificate))
        renewed = Key("n1", keys.Credential(tmp_path / "new.pem"))
        await beat(server, await renewed.exchange(server, counter=50))
        with pytest.raises(NodeRevoked):
            await key.exchange(server, counter=51)


async def made(server: ServerProcess, admin: ApiClient, directory: NodeDirectory, name: str) -> Identity:
    """A node whose state is in `directory`, as joining makes it."""
    directory.prepare()
    token = await admin.post("/api/v1/tokens", TokenRequest("join", name), NewToken)
    key = keys.generate()
    place = keys.place(directory.root)
    async with ApiClient(server.url, token.token, tls=admin.tls) as joining:
        request = nodes.Join(name, name, "0.1", keys.request(key, name), place)
        directory.credential.write_bytes(keys.pem(key, (await nodes.join(joining, request)).certificate))
    return Identity(name, server.url)


async def test_a_session_renews_token_and_certificate_by_itself(server, tmp_path: Path):
    directory = NodeDirectory(tmp_path / "node")
    async with server.client() as admin:
        who = await made(server, admin, directory, "n1")
        async with Session(directory, who, server.url, None) as session:
            await nodes.beat(session, nodes.Heartbeat())
            before = keys.Credential(directory.credential).serial
            for known in await admin.get("/api/v1/tokens", list[TokenInfo]):
                if known.kind == "node":
                    await admin.delete(f"/api/v1/tokens/{known.id}")
            await nodes.beat(session, nodes.Heartbeat())
            await session.renew()
            await nodes.beat(session, nodes.Heartbeat())
            assert keys.Credential(directory.credential).serial != before
        async with Session(directory, who, server.url, None) as session:
            await nodes.beat(session, nodes.Heartbeat())  # a restarted node agent goes on
        await nodes.remove(admin, "n1")
        async with Session(directory, who, server.url, None) as session:
            with pytest.raises(Unauthenticated):
                await nodes.beat(session, nodes.Heartbeat())


def copy_while_it_works(state: Path, to: Path) -> None:
    """Copy a node's state; again when one of its files was gone before its turn came."""
    deadline = time.monotonic() + 60
    while True:
        try:
            shutil.copytree(state, to, ignore=shutil.ignore_patterns("up.lock"))
        except (shutil.Error, FileNotFoundError):
            assert time.monotonic() < deadline
            shutil.rmtree(to, ignore_errors=True)
        else:
            to.chmod(0o700)
            return


def test_a_copied_machine_is_refused_and_shown_while_the_node_works(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    copy = NodeProcess(tmp_path / "copy", server, "web1")
    copy_while_it_works(node.state, copy.state)
    copy.join_token.write_text("none")
    copy.start()
    try:

        async def main() -> None:
            async with server.client() as admin:
                deadline = time.monotonic() + 60
                while (await nodes.show(admin, "web1")).summary.trouble is None:
                    assert time.monotonic() < deadline, copy.log()
                    await asyncio.sleep(0.1)
                assert (await nodes.show(admin, "web1")).summary.state == "ready"
            await eventually(lambda: "answers from another machine" in copy.log())

        asyncio.run(main())
        assert node.process is not None
        assert node.process.poll() is None
    finally:
        copy.kill()


# --- TLS --------------------------------------------------------------------------------------


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = directory / "server.pem", directory / "server.key"
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    return cert, private


async def test_over_tls_a_stolen_token_is_worth_nothing(start_server, tmp_path: Path):
    cert, private = certificate(tmp_path)
    server = start_server(f"server: {{tls: {{cert: {cert}, key: {private}}}}}\n")
    server.url = server.url.replace("http:", "https:")
    trust = discovery.Credentials(server.url, "", cert).tls()
    directory = NodeDirectory(tmp_path / "node")
    async with ApiClient(server.url, server.token, tls=trust) as admin:
        who = await made(server, admin, directory, "n1")
        async with Session(directory, who, server.url, cert) as session:
            await nodes.beat(session, nodes.Heartbeat())
            stolen = session._authorization["Authorization"].partition(" ")[2]
            async with ApiClient(server.url, stolen, tls=trust) as thief:
                with pytest.raises(Unauthenticated, match="TLS client certificate"):
                    await nodes.beat(thief, nodes.Heartbeat())
            other = NodeDirectory(tmp_path / "other")
            await made(server, admin, other, "n2")
            theirs = discovery.Credentials(server.url, "", cert).tls()
            assert theirs is not None
            theirs.load_cert_chain(other.credential)
            async with ApiClient(server.url, stolen, tls=theirs) as thief:
                with pytest.raises(Unauthenticated, match="TLS client certificate"):
                    await nodes.beat(thief, nodes.Heartbeat())
            await session.renew()
            await nodes.beat(session, nodes.Heartbeat())
        foreign = discovery.Credentials(server.url, "", cert).tls()
        assert foreign is not None
        foreign.load_cert_chain(cert, private)  # of no CA that the server knows
        async with ApiClient(server.url, server.token, tls=foreign) as client:
            with pytest.raises((Unavailable, ssl.SSLError)):
                await nodes.listing(client)


async def test_of_machines_that_join_again_at_once_one_wins(server):
    """A revoked node, and one whose answer never arrived: the others' certificates never count."""
    async with server.client() as admin:
        made = await admin.post("/api/v1/tokens", TokenRequest("join", "rack", uses=20), NewToken)
        async with server.client(made.token) as joining:
            await nodes.join(joining, join_request("lost"))
            await nodes.join(joining, join_request("old"))
            await nodes.act(admin, "old", "revoke")
            for name in ("lost", "old"):
                answers = await asyncio.gather(
                    *(nodes.join(joining, join_request(name)) for _ in range(6)), return_exceptions=True
                )
                won = [each for each in answers if isinstance(each, nodes.Joined)]
                assert won, answers
                assert all(isinstance(each, nodes.Joined | Conflict) for each in answers)
                good = [each for each in won if await works(server, each.token)]
                assert len(good) == 1, "the last one to win is the node"
                shown = await nodes.show(admin, name)
                assert shown.certificate is not None
                assert shown.certificate.serial == serial(good[0].certificate)


async def works(server: ServerProcess, token: str) -> bool:
    async with server.client(token) as client:
        try:
            await nodes.beat(client, nodes.Heartbeat())
        except Unauthenticated:
            return False
    return True


def serial(pem: str) -> str:
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:040x}"


async def test_who_waits_in_the_name_of_a_revoked_node_is_told_nothing(server):
    async with server.client() as admin:
        for name in ("revoked", "removed"):
            made = await admin.post("/api/v1/tokens", TokenRequest("join", name), NewToken)
            async with server.client(made.token) as joining:
                joined = await nodes.join(joining, join_request(name))
            async with server.client(joined.token) as node, server.client(joined.token) as beating:
                await nodes.beat(beating, nodes.Heartbeat())
                waiting = asyncio.create_task(jobs.claim(node, wait=60))
                await asyncio.sleep(0)
                began = time.monotonic()
                await nodes.beat(beating, nodes.Heartbeat())  # while the claim is on its way
                if name == "revoked":
                    await nodes.act(admin, name, "revoke")
                else:
                    await nodes.remove(admin, name)
                with pytest.raises(Unauthenticated):
                    await waiting
                assert time.monotonic() - began < 50, "at once, not when its wait is over"

"""A real PostgreSQL of the tests' own: a cluster in a temporary folder, run by somebody who is not root."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "s3cret-Pa55-ö/@"
USER = "datamesh"


def programs() -> Path | None:
    """The folder with `initdb`, where PostgreSQL is installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(folders, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0, default=None)
    return newest.parent if newest else None


@dataclass
class Postgres:
    """A running server."""

    folder: Path
    programs: Path
    port: int
    as_user: dict = field(default_factory=dict)

    @classmethod
    def start(cls, programs: Path) -> "Postgres":
        folder = Path(tempfile.mkdtemp(prefix="datamesh-pg-"))
        as_user = {}
        if os.geteuid() == 0:
            # The server refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(folder, programs, port, as_user)
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        server.run("initdb", "-D", folder / "data", "-U", USER, "--auth=scram-sha-256", "--auth-local=trust",
                   "--pwfile", secret, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        certificate = server.make_certificate()
        if certificate:
            options += f" -c ssl=on -c ssl_cert_file={certificate[0]} -c ssl_key_file={certificate[1]}"
        server.run("pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
        return server

    def make_certificate(self) -> tuple[Path, Path] | None:
        """A certificate of its own for `localhost`, where openssl is there to make one."""
        if not shutil.which("openssl"):
            return None
        certificate, key = self.folder / "server.crt", self.folder / "server.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                   "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.as_user)
        certificate.chmod(0o644)
        return certificate, key

    def run(self, program: str, *arguments) -> str:
        command = [str(self.programs / program), *map(str, arguments)]
        # A server that stays holds on to what it inherits, so its output goes to a file and not to a pipe.
        output = self.folder / "output"
        with output.open("w") as out:
            done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=120, cwd=self.folder,
                                  **self.as_user)
        assert done.returncode == 0, f"{program} exits {done.returncode}\n{output.read_text()}"
        return output.read_text()

    def sql(self, text: str, database: str = "postgres") -> str:
        command = [str(self.programs / "psql"), "-h", str(self.folder), "-p", str(self.port), "-U", USER, "-d", database,
                   "-v", "ON_ERROR_STOP=1", "-qAt"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def url(self, database: str = "postgres", password: str = PASSWORD, user: str = USER, options: str = "") -> str:
        from urllib.parse import quote

        return f"postgres://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}{options}"

    def stop(self) -> None:
        try:
            self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
        finally:
            time.sleep(0.1)
            shutil.rmtree(self.folder, ignore_errors=True)

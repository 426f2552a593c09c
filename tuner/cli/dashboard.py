"""`tuner dashboard`: optuna-dashboard on a study's storage, with what the tuner knows beside what Optuna does."""

import os
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import typer

from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer
    from wsgiref.types import WSGIApplication

    from tuner.spec import LoadedStudy

LOOPBACK = ("127.0.0.1", "localhost", "::1")

USER = "tuner"
"""The name that goes with the password."""


def dashboard(
    study: StudyPath,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a password.")
    ] = "127.0.0.1",
    password_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Environment variable that holds the password; the user's name is {USER}.",
        ),
    ] = None,
) -> None:
    """Serve optuna-dashboard: metrics with units, a note for each trial, fronts with error bars, configs as files that run.

    It can delete studies and has no password of its own, so it listens on 127.0.0.1 unless you give it one.
    """
    from threading import Thread

    from tuner.cli.output import talk
    from tuner.results import open_results
    from tuner.spec import load_study

    password = _password(host, password_env)
    loaded = load_study(study)
    open_results(loaded).close()  # says it well if there is none
    with _listen(host, port) as server:
        app = _app(loaded)
        server.set_app(app if password is None else _guarded(app, password))
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{server.server_port}/dashboard/", flush=True)
        talk("stop with Ctrl-C")
        # In a thread of its own: a Ctrl-C during a request would be taken for the request's failure.
        serving = Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            serving.join()
        finally:
            server.shutdown()


def _password(host: str, variable: str | None) -> str | None:
    """The password to be asked for, None for none. Raises UserError where there has to be one and is not."""
    from tuner.errors import UserError

    if variable is None:
        if host in LOOPBACK:
            return None
        raise UserError(
            f"--host {host}: whoever reaches the dashboard can delete studies, and it has no password",
            hint="give it one, export TUNER_PASSWORD=… and --password-env TUNER_PASSWORD; or stay on 127.0.0.1 and "
            "reach it through ssh -L",
        )
    password = os.environ.get(variable)
    if not password:
        raise UserError(
            f"--password-env: the environment variable {variable} is {'empty' if password == '' else 'not set'}",
            hint=f"set it in this shell: export {variable}=…",
        )
    return password


def _listen(host: str, port: int) -> "WSGIServer":
    """A server that answers each request in a thread of its own: the page asks for much at once. Raises UserError."""
    import socket
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler
    from wsgiref.simple_server import WSGIServer

    from tuner.errors import UserError

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Server((host, port), Quiet)
    except OSError as error:
        raise UserError(
            f"port {port} on {host}: {error.strerror}", hint="name another one: --port 0"
        ) from None


def _app(study: "LoadedStudy") -> "WSGIApplication":
    """optuna-dashboard on the study's storage, once all that it is to show stands there."""
    from contextlib import closing

    import optuna
    import optuna_dashboard
    from optuna.artifacts import FileSystemArtifactStore

    from tuner.cli.output import talk
    from tuner.dashboard import artifact_folder
    from tuner.dashboard import plots_are_drawn
    from tuner.dashboard import refresh
    from tuner.errors import UserError
    from tuner.results import open_results
    from tuner.store.schema import open_optuna_storage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_optuna_storage(study.storage_url)
    folder = artifact_folder(study)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made: {error.strerror}",
            hint="the dashboard keeps its files there: copy the study to where you may write",
        ) from None
    with closing(open_results(study)) as store:
        written = refresh(study, store, folder)
    talk(
        f"new or changed: {written.notes} notes and {written.plots} plots; {written.files} files in {folder}"
    )
    if not plots_are_drawn():
        talk("plots with error bars and the report need: pip install 'tuner[report]'")
    app: WSGIApplication = optuna_dashboard.wsgi(
        storage, artifact_store=FileSystemArtifactStore(folder)
    )
    return app


def _guarded(app: "WSGIApplication", password: str) -> "WSGIApplication":
    """The application for those who know the password, by HTTP's basic authentication."""
    import base64
    from hmac import compare_digest

    wanted = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    def guarded(environ: dict[str, Any], start_response: Any) -> Any:
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1", "replace")
        if compare_digest(given, wanted):  # takes as long wherever they differ
            return app(environ, start_response)
        headers = [
            ("WWW-Authenticate", 'Basic realm="tuner", charset="UTF-8"'),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
        start_response("401 Unauthorized", headers)
        return [b"name and password, please\n"]

    return guarded

"""`tuner dashboard`: optuna-dashboard on a study's storage."""

from typing import Annotated

import typer

from tuner.cli.arguments import StudyPath


def dashboard(
    study: StudyPath,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
) -> None:
    """Serve optuna-dashboard on 127.0.0.1; it has no password and can delete studies, so it stays on this machine."""
    from threading import Thread
    from wsgiref.simple_server import WSGIRequestHandler
    from wsgiref.simple_server import make_server

    from tuner.cli.output import talk
    from tuner.errors import UserError
    from tuner.results import open_results
    from tuner.spec import load_study
    from tuner.store.schema import open_optuna_storage

    loaded = load_study(study)
    open_results(loaded).close()  # says it well if there is none

    import optuna_dashboard

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    app = optuna_dashboard.wsgi(open_optuna_storage(loaded.storage_url))
    try:
        server = make_server("127.0.0.1", port, app, handler_class=Quiet)
    except OSError as error:
        raise UserError(
            f"port {port} on 127.0.0.1: {error.strerror}", hint="name another one: --port 0"
        ) from None
    with server:
        print(f"http://127.0.0.1:{server.server_port}/dashboard/", flush=True)
        talk("stop with Ctrl-C")
        # In a thread of its own: a Ctrl-C during a request would be taken for the request's failure.
        serving = Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            serving.join()
        finally:
            server.shutdown()

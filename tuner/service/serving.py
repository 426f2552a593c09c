"""Opening a service and answering until it is told to end; what runs then goes on at the next start.

Apart from `app`, which is the same behind any server.
"""

import fcntl
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager

from tuner.errors import UserError
from tuner.openai_api.server import bind
from tuner.openai_api.server import serve as listen
from tuner.service.app import make_app
from tuner.service.book import Book
from tuner.service.engine import Engine
from tuner.service.spec import LoadedService
from tuner.study import run_study_among

GRACE_S = 5
"""For answers under way; whoever follows a study is let go at once, and comes back to the next service."""


def serve(service: LoadedService, *, allow_custom: bool, ready: Callable[[str], None]) -> None:
    """Answer until SIGTERM or SIGINT. Raises UserError where that cannot be begun."""
    with _alone(service), closing(Book(service.storage_url)) as book:
        if service.listens_to_others and not book.has_users():
            raise UserError(
                f"{service.path}: host: {service.spec.host}: other machines could ask there, and no token is asked of them",
                hint="give it users first: tuner up FILE --add-user NAME; TLS belongs to a reverse proxy before it",
            )
        with bind(service.spec.host, service.spec.port) as listening:
            engine = Engine(service, book, run_study_among)
            app = make_app(service, book, engine, allow_custom=allow_custom)
            host, port = listening.getsockname()[:2]
            ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
            listen(app, listening, grace_s=GRACE_S, stopping=engine.begin_to_stop)


@contextmanager
def _alone(service: LoadedService) -> Iterator[None]:
    """While no other process serves from this folder; the system lets go of it, whatever ends us."""
    folder = service.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"{service.path}: folder: {folder} cannot be written to: {error.strerror}",
            hint="name a folder of your own",
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{service.path}: folder: another service works in {folder}",
                hint="end it, or give this one a folder and a storage of its own",
            ) from None
        for left in folder.glob(".new-*"):  # submissions that were arriving when one was killed
            shutil.rmtree(left, ignore_errors=True)
        yield

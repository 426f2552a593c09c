"""What `programs` runs in the sandbox: tests in one process, the program that they judge in another.

Apart from `programs` because its text is all that the sandbox gets; it imports the standard library alone.
The program's process never holds a test or an expected value: it is asked for one call at a time, with
plain data (numbers, text, lists, dicts, …) both ways. So it cannot read the tests, end them, or answer with
an object that equals everything; what it prints and how it exits say nothing.

What is no plain data stays where it was made, and the tests get a `Remote` to call, to iterate over and to
take attributes of: so they can build a program's own classes. It equals nothing but itself.
"""

import builtins
import ctypes
import json
import os
import sys
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NoReturn

_PR_SET_DUMPABLE = 4
_CONTAINERS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_PLAIN: tuple[Any, ...] = (bool, int, float, str)


def judge(source: str, program: str, before: str, entry: str, tests: str) -> None:
    """Run the tests on a program; all pass, or an exception says what did not.

    `source` is this file's text. `before` is code that tests and program share; what the program defines
    besides is known to the tests too, and of `entry` the program's is the one that counts.
    """
    os.remove("program.py")  # this text, tests included
    ctypes.CDLL(None).prctl(
        _PR_SET_DUMPABLE, 0, 0, 0, 0
    )  # nor may the program look into this process
    sys.set_int_max_str_digits(0)
    link, names = _start(source, program)
    known: dict[str, Any] = {"__name__": "tests"}
    exec(before, known)  # noqa: S102 - this is what the sandbox is for
    for name in names:
        if name == entry or (name not in known and not hasattr(builtins, name)):
            known[name] = Remote(link, name)
    exec(tests, known)  # noqa: S102


def serve(read: int, write: int) -> None:
    """Run a program and then what is asked of it, until nobody asks."""
    sys.set_int_max_str_digits(0)
    with os.fdopen(read) as asked, os.fdopen(write, "w") as answer:
        own: dict[str, Any] = {"__name__": "program"}
        objects: list[Any] = []
        for line in asked:
            try:
                reply = ["gave", _encode(_do(json.loads(line), own, objects), objects)]
            except BaseException as error:
                kinds = [kind.__name__ for kind in type(error).__mro__]
                reply = ["raised", kinds, str(error)]
            answer.write(json.dumps(reply) + "\n")
            answer.flush()


class Link:
    """Where the program's process is asked."""

    def __init__(self, read: int, write: int) -> None:
        self._answers = os.fdopen(read)
        self._ask = os.fdopen(write, "w")

    def ask(self, *request: object) -> Any:
        """What the program's process gives. Raises what it raised, if that is a usual exception."""
        self._ask.write(json.dumps([_encode(part, None) for part in request]) + "\n")
        self._ask.flush()
        line = self._answers.readline()
        if not line:
            raise EOFError("the program has ended")
        kind, given, *message = json.loads(line)
        if kind != "raised":
            return _decode(given, lambda target: Remote(self, target))
        _raise_alike(given, message[0])


class Remote:
    """What the program's process has under a name or number, and how to use it from here."""

    def __init__(self, link: Link, target: str | int) -> None:
        self.__dict__.update(_link=link, _target=target)

    def __call__(self, *arguments: object, **named: object) -> Any:
        """What it returns there."""
        return self._link.ask("call", self._target, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("get", self._target, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._link.ask("set", self._target, name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._link.ask("list", self._target))


def _start(source: str, program: str) -> tuple[Link, list[str]]:
    """A process with the program, and the names of what can be called there."""
    there, ask = os.pipe()
    answers, back = os.pipe()
    if os.fork() == 0:
        for number in (there, back):
            os.set_inheritable(number, True)
        code = f"{source}\nserve({there}, {back})"
        os.execv(sys.executable, [sys.executable, "-ISBu", "-Xutf8", "-c", code])  # noqa: S606
    os.close(there)
    os.close(back)
    link = Link(answers, ask)
    return link, link.ask("run", program)


def _do(request: list[Any], own: dict[str, Any], objects: list[Any]) -> Any:
    def look_up(target: str | int) -> Any:
        return own[target] if isinstance(target, str) else objects[target]

    verb, target, *rest = (_decode(part, look_up) for part in request)
    if verb == "run":
        exec(compile(target, "program.py", "exec"), own)  # noqa: S102
        return [name for name, value in own.items() if callable(value)]
    thing = look_up(target)
    if verb == "call":
        return thing(*rest[0], **rest[1])
    if verb == "list":
        return list(thing)
    return getattr(thing, rest[0]) if verb == "get" else setattr(thing, *rest)


def _encode(value: object, objects: list[Any] | None) -> Any:
    """A value as JSON: plain data, of subclasses too, with their types; else a number under which `objects` keeps it."""
    if value is None:
        return None
    for plain in _PLAIN:
        if isinstance(value, plain):
            return plain.__str__(value) if plain is str else plain(value)
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", [[_encode(part, objects) for part in item] for item in value.items()]]
    for kind, container in _CONTAINERS.items():
        if isinstance(value, container):
            return [kind, [_encode(part, objects) for part in value]]
    if isinstance(value, Remote):
        return ["remote", value._target]
    if objects is None:
        raise TypeError(f"a {type(value).__name__} cannot be given to the program")
    objects.append(value)
    return ["remote", len(objects) - 1]


def _decode(data: Any, remote: Callable[[Any], Any]) -> Any:
    if not isinstance(data, list):
        return data
    kind, content = data
    if kind == "complex":
        return complex(*content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {_decode(key, remote): _decode(value, remote) for key, value in content}
    if kind == "remote":
        return remote(content)
    return _CONTAINERS[kind](_decode(part, remote) for part in content)


def _raise_alike(kinds: list[str], message: str) -> NoReturn:
    """Raise the first of these exceptions that everybody has."""
    for kind in kinds:
        found = getattr(builtins, kind, None)
        if isinstance(found, type) and issubclass(found, Exception):
            try:
                error = found(message)
            except TypeError:  # it wants more than a message
                continue
            raise error
    raise RuntimeError(f"{kinds[0]}: {message}")

"""`tuner submit`: hands a study to a service, with every file that it names."""

from typing import Annotated

import typer

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath


def submit(
    study: StudyPath,
    priority: Annotated[
        float,
        typer.Option(
            min=0.1, max=10.0, help="Beside other studies: twice as much has servers twice as long."
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Hand a study to the service at TUNER_SERVICE, which runs it; once more with a larger budget, and it goes on."""
    from tuner.bundle import pack
    from tuner.cli.output import command
    from tuner.cli.output import print_json
    from tuner.cli.output import talk
    from tuner.service.client import Client
    from tuner.spec import load_study

    loaded = load_study(study)
    bundle = pack(loaded)
    loaded.load_task()  # what is wrong with its questions shows here rather than there
    with Client() as client:
        content = client.post("/studies", {**bundle.content(), "priority": priority})
    if as_json:
        print_json(content)
        return
    name = content["name"]
    talk(f"study {name} is {content['state']} at {client.address}")
    print(name)
    talk(f"next: {command()} logs {name} --follow")

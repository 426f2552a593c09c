"""`tuner cancel`: ends a study of a service."""

from tuner.cli.arguments import SubmittedName


def cancel(study: SubmittedName) -> None:
    """End a study of the service at TUNER_SERVICE; what it has finished is kept."""
    from tuner.cli.arguments import submitted_name
    from tuner.cli.output import talk
    from tuner.service.client import Client

    with Client() as client:
        content = client.change(submitted_name(study), "cancel")
    talk(f"study {content['name']} is {content['state']}")

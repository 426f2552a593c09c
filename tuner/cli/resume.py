"""`tuner resume`: has a study of a service go on."""

from tuner.cli.arguments import SubmittedName


def resume(study: SubmittedName) -> None:
    """Have a study of the service at TUNER_SERVICE go on that rests, was cancelled or has failed."""
    from tuner.cli.arguments import submitted_name
    from tuner.cli.output import talk
    from tuner.service.client import Client

    with Client() as client:
        content = client.change(submitted_name(study), "resume")
    talk(f"study {content['name']} is {content['state']}")

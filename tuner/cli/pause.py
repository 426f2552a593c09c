"""`tuner pause`: lets a study of a service rest."""

from tuner.cli.arguments import SubmittedName


def pause(study: SubmittedName) -> None:
    """Let a study of the service at TUNER_SERVICE rest, and others have its servers; tuner resume goes on with it."""
    from tuner.cli.arguments import submitted_name
    from tuner.cli.output import talk
    from tuner.service.client import Client

    with Client() as client:
        content = client.change(submitted_name(study), "pause")
    talk(f"study {content['name']} is {content['state']}")

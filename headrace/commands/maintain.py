"""`headrace maintain`."""

from headrace.commands.options import Json


def maintain(json: Json = False) -> None:
    """Compact small files of the Iceberg tables, expire old snapshots, delete orphans. Safe beside everything else."""
    from dataclasses import asdict

    from batch.maintain import maintain as keep_up
    from batch.settings import BatchSettings
    from features.applied import load_applied
    from headrace.settings import read_settings
    from headrace.terminal.output import print_json, say, working

    settings = read_settings(BatchSettings)
    definitions = load_applied(settings.registry_address(), settings.project)
    with working("looking after the tables") as report:
        done = keep_up(settings, definitions, report)
    if json:
        print_json(asdict(done))
    else:
        say(
            f"{done.files_before:,} small files became {done.files_after:,}, {done.snapshots_expired:,} snapshots"
            f" expired, {done.orphans_deleted:,} orphans deleted, {done.bytes_freed / 1e6:,.1f} MB freed"
        )

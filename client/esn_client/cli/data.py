"""Commands that make connectomes: simulated hospitals, and scans prepared."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from esn_core.errors import ConfigError, SubjectsFailedError
from esn_core.system.command_line import progress_bar, say


def simulate(
    directory: Annotated[Path, typer.Argument(help="The BIDS dataset to write.")],
    site: Annotated[
        str, typer.Option(help="Any name; north, south, west, east and coast have scanners of their own.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal datasets.")],
    world_seed: Annotated[
        int | None,
        typer.Option(min=0, help="Draws the disease, which hospitals that rehearse share; else --seed does."),
    ] = None,
    protocol: Annotated[
        Path | None,
        typer.Option(help="For this study's recipe, atlas and columns; not with --scans."),
    ] = None,
    connectomes: Annotated[
        Path | None,
        typer.Option(
            help="Write derivatives there and no scans, on desikan-killiany-83 or as --protocol says; with "
            "--scans on phantom-28."
        ),
    ] = None,
    scans: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --connectomes: so many children have raw scans, to be prepared, instead."
        ),
    ] = None,
    world: Annotated[
        str,
        typer.Option(
            help="With --connectomes: clinical, weak, non-additive or epilepsy (published regions)."
        ),
    ] = "clinical",
    children: Annotated[int, typer.Option(min=1, help="Children with drug-resistant epilepsy.")] = 24,
    controls: Annotated[int, typer.Option(min=0, help="Healthy controls.")] = 8,
    truth: Annotated[Path | None, typer.Option(help="Write the hidden truth here, for tests only.")] = None,
    n_procs: Annotated[int, typer.Option(min=1, help="Subjects at a time.")] = 1,
) -> None:
    """Write a simulated hospital, raw diffusion MRI or connectomes or both, of children who do not exist."""
    from esn_client.simulation.connectomes import write_connectomes, write_partly_scanned
    from esn_client.simulation.scans import write_site
    from esn_core.protocol.protocol import load_protocol

    if connectomes is None and scans is not None:
        raise ConfigError("--scans is for --connectomes; without it every child has scans")
    if protocol is not None and scans is not None:
        raise ConfigError(
            "--protocol is for scans alone or connectomes alone; --scans mixes them for the phantom's recipe"
        )
    if world != "clinical" and (connectomes is None or scans is not None):
        raise ConfigError("--world is for --connectomes; scans are simulated of one kind of world alone")
    if world_seed is None:
        say(f"the disease is of seed {seed}: hospitals that rehearse together need one --world-seed")
    if connectomes is not None and scans is not None:
        write_partly_scanned(
            directory,
            connectomes,
            site=site,
            seed=seed,
            children=children,
            controls=controls,
            scans=scans,
            truth=truth,
            n_procs=n_procs,
            world_seed=world_seed,
        )
        typer.echo(str(directory))
        return
    if connectomes is not None:
        write_connectomes(
            directory,
            connectomes,
            site=site,
            seed=seed,
            children=children,
            controls=controls,
            truth=truth,
            world=world,
            world_seed=world_seed,
            protocol=None if protocol is None else load_protocol(protocol),
        )
        typer.echo(str(directory))
        return
    write_site(
        directory,
        site=site,
        seed=seed,
        children=children,
        controls=controls,
        truth=truth,
        n_procs=n_procs,
        world_seed=world_seed,
        protocol=None if protocol is None else load_protocol(protocol),
    )
    typer.echo(str(directory))


def prepare(
    bids_dir: Annotated[Path, typer.Argument(help="The BIDS dataset with the scans.")],
    output_dir: Annotated[Path, typer.Argument(help="The derivative dataset to write.")],
    analysis_level: Annotated[
        Literal["participant", "group"],
        typer.Argument(
            metavar="LEVEL", help="participant: make connectomes; group: judge all that are made."
        ),
    ],
    protocol: Annotated[
        Path, typer.Option(help="The study's protocol: its table \\[imaging] is the recipe.")
    ],
    participant_label: Annotated[
        list[str] | None, typer.Option(help="Only this participant, with or without 'sub-'; may be repeated.")
    ] = None,
    session_label: Annotated[
        list[str] | None, typer.Option(help="Only this session, with or without 'ses-'; may be repeated.")
    ] = None,
    n_procs: Annotated[int, typer.Option(min=1, help="Subjects at a time.")] = 1,
    mem_gb: Annotated[float | None, typer.Option(min=0.5, help="Memory of all subjects at a time.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where streamlines are followed; a card is taken only when it is asked for."),
    ] = "cpu",
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Keep every stage here; without it, those of unfinished subjects stay."),
    ] = None,
    skip_pages: Annotated[
        bool, typer.Option("--skip-pages", help="Make no page on each subject's quality.")
    ] = False,
    tractograms: Annotated[
        bool, typer.Option("--tractograms", help="Keep all streamlines too, as .trx.")
    ] = False,
    exclude_failed: Annotated[
        bool,
        typer.Option(
            "--exclude-failed",
            help="group: studies leave out the visits that fail, by numbers or by who looked.",
        ),
    ] = False,
) -> None:
    """Make each subject's connectome from its raw diffusion MRI, and judge it."""
    from esn_client.imaging.pipeline.dataset_run import prepare as prepare_dataset
    from esn_client.imaging.quality.site_table import site_files, ways_scanned, write_site
    from esn_core.protocol.protocol import load_protocol

    recipe = load_protocol(protocol).imaging
    if analysis_level == "group":
        rows = write_site(output_dir, recipe, exclude_failed=exclude_failed)
        for path in site_files(output_dir, recipe):
            typer.echo(str(path))
        for row in rows:
            if row.failure:
                typer.echo(f"not prepared: {row.visit.label}: {row.failure}", err=True)
        unprepared, left_out = sum(r.failure is not None for r in rows), sum(r.excluded for r in rows)
        failed = sum(r.verdict == "fail" for r in rows) - unprepared
        say(f"{len(rows)} visits: {unprepared} not prepared, {failed} fail, studies leave {left_out} out")
        if len(ways := ways_scanned(rows)) > 1:
            said = "; ".join(f"{visits} with {words}" for words, visits in ways)
            typer.echo(f"not all were scanned alike, which changes connectomes: {said}", err=True)
        return
    if exclude_failed:
        raise ConfigError("--exclude-failed belongs to the group level, which judges all visits")
    with progress_bar(f"preparing {bids_dir.name}") as tell:
        failures = prepare_dataset(
            bids_dir,
            output_dir,
            recipe,
            participants=participant_label,
            sessions=session_label,
            n_procs=n_procs,
            mem_gb=mem_gb,
            device=device,
            work_dir=work_dir,
            pages=not skip_pages,
            tractograms=tractograms,
            progress=tell,
        )
    if failures:
        for failure in failures:
            typer.echo(f"not prepared: {failure.visit}: {failure.error_class}: {failure.message}", err=True)
        raise SubjectsFailedError(f"{len(failures)} visits could not be prepared; the others are done")
    typer.echo(str(output_dir))


def rate(
    output_dir: Annotated[Path, typer.Argument(help="The derivative dataset.")],
    rating: Annotated[Literal["pass", "fail"], typer.Argument(help="What you say of the visit's page.")],
    protocol: Annotated[Path, typer.Option(help="The study's protocol.")],
    participant_label: Annotated[str, typer.Option(help="Of whom, with or without 'sub-'.")],
    initials: Annotated[str, typer.Option(help="Who looked: two to four letters.")],
    session_label: Annotated[str | None, typer.Option(help="With or without 'ses-'.")] = None,
    note: Annotated[str, typer.Option(help="In a line; it stays here.")] = "",
) -> None:
    """Write down what somebody says of a visit's page; 'prepare … group' counts a fail as one."""
    from esn_client.imaging.bids.visits import Visit
    from esn_client.imaging.quality.ratings import rate as write_rating
    from esn_core.protocol.protocol import load_protocol

    visit = Visit.named(participant_label, session_label)
    recipe = load_protocol(protocol).imaging
    said = write_rating(output_dir, recipe, visit, rating=rating, initials=initials, note=note)
    typer.echo(f"{visit.label}\t{said.rating}\t{said.initials}\t{said.date}")


def candidates(
    bids_dir: Annotated[Path, typer.Argument(help="The dataset with participants.tsv.")],
    derivatives: Annotated[Path, typer.Argument(help="Its connectomes.")],
    protocol: Annotated[
        Path, typer.Option(help=r"A protocol, or a draft: its table \[imaging] is the recipe.")
    ],
    note: Annotated[str, typer.Option(help="Whose cohort it is; everybody reads it.")],
    out: Annotated[Path, typer.Option(help="The list to write.")],
    settings: Annotated[
        Path | None, typer.Option(help="The site's settings: who withdrew consent there is left out.")
    ] = None,
) -> None:
    """List the edges that nearly all controls of a cohort have; reads no child with epilepsy."""
    from esn_client.cohort.own_candidates import candidates_of_controls
    from esn_client.cohort.participants import read_participants
    from esn_client.cohort.withdrawn import remaining
    from esn_client.site.settings import load_site
    from esn_client.site.state import open_ledger, read_salt
    from esn_core.protocol.protocol import load_protocol

    if out.exists():
        raise ConfigError(f"{out} exists; a list is never overwritten")
    recipe = load_protocol(protocol).imaging
    people = read_participants(bids_dir)
    if settings is not None:
        site = load_site(settings)
        with open_ledger(site) as ledger:
            people = remaining(people, ledger, salt=read_salt(site))
    found = candidates_of_controls(people, derivatives, recipe, note=note)
    found.write(out)
    say(f"{len(found.pairs)} edges of {found.origin.people} controls")
    typer.echo(str(out))


def take_in(
    output_dir: Annotated[Path, typer.Argument(help="The derivative dataset to write to.")],
    matrix: Annotated[Path, typer.Argument(help="MRtrix's matrix, or a BEP017 '…_relmat.dense.tsv'.")],
    protocol: Annotated[Path, typer.Option(help="The study's protocol; its recipe says 'made_elsewhere'.")],
    participant_label: Annotated[str, typer.Option(help="Of whom, with or without 'sub-'.")],
    nodes: Annotated[
        Path | None,
        typer.Option(help="Table of the rows' numbers and names; without it, the relmat's own sidecar."),
    ] = None,
    session_label: Annotated[str | None, typer.Option(help="With or without 'ses-'.")] = None,
) -> None:
    """Take in a connectome that was made elsewhere, by a recipe that all sites of the study share."""
    from esn_client.imaging.bids.foreign import import_connectome
    from esn_client.imaging.bids.visits import Visit
    from esn_core.protocol.protocol import load_protocol

    visit = Visit.named(participant_label, session_label)
    recipe = load_protocol(protocol).imaging
    typer.echo(str(import_connectome(matrix, output_dir, visit, recipe, nodes=nodes)))

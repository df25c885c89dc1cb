"""The work of `rammerge merge`, once its options have been parsed."""

from collections.abc import Mapping
from pathlib import Path

from rich.filesize import decimal

from rammerge.checkpoints.companions import companions_of
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.mergeable import Resize
from rammerge.cli.parsing import split_groups
from rammerge.cli.printing import print_merge
from rammerge.cli.terminal import progress_display, say
from rammerge.engine.forecast import forecast
from rammerge.engine.options import MergeOptions
from rammerge.publishing.making import merge_family
from rammerge.publishing.room import check_output
from rammerge.rules import ResolvedMethod


def merge(
    base: str,
    agents: Mapping[str, str],
    out: Path,
    method: ResolvedMethod,
    how: MergeOptions,
    *,
    resize: Resize,
    tokenizer: str,
    force: bool,
) -> None:
    """Check everything, say what it will take, merge with a progress bar, and print what was made."""
    check_output(out, force=force, needed_bytes=0)
    members, groups = split_groups(agents)
    family = Family.open(base, members, groups=groups, resize=resize, progress=say)
    companions_of(family.sources, tokenizer)
    expected = forecast(family, method.bind_to(family), how)
    say(f"forecast: peak memory {expected.memory / 2**20:.0f} MiB, output {decimal(expected.disk)}")
    with progress_display() as progress:
        report = merge_family(family, method, out, how, tokenizer_from=tokenizer, force=force, progress=progress)
    print_merge(report)

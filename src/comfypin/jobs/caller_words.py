"""Names what a caller can ask for as that caller does: by flags on the command line, by fields in a job."""

from dataclasses import dataclass


# One sentence serves both callers, so that no message tells an HTTP client to type a flag.
@dataclass(frozen=True, slots=True, kw_only=True)
class CallerWords:
    """Words of one kind of caller, used in the sentences that this caller reads.

    `bring_file` says how to bring a file that node `{node}` names, and `{folder}` is where files are looked for.
    """

    timeout: str
    previews: str
    files_are_in: str
    bring_file: str


COMMAND_LINE_WORDS = CallerWords(
    timeout="--timeout",
    previews="--previews",
    files_are_in="{folder}",
    bring_file="put it there, or point the node at another one with --input {node}=FILE",
)
JOB_WORDS = CallerWords(
    timeout="`timeout_s`",
    previews="`output.previews`",
    files_are_in="the job's inputs",
    bring_file="send it in `inputs` under that name, or point the node at another one with `inputs[].node`: {node}",
)

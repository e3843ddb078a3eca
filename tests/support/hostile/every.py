"""The whole list."""

from itertools import chain

from tests.support.hostile import in_jobs, over_http
from tests.support.hostile.request import Hostile

EVERY: tuple[Hostile, ...] = tuple(
    chain(
        in_jobs.addresses(),
        in_jobs.webhooks(),
        in_jobs.buckets(),
        in_jobs.redirects(),
        in_jobs.names(),
        over_http.smuggling(),
        over_http.paths(),
        over_http.content(),
        over_http.bodies(),
        over_http.tokens(),
        over_http.origins(),
        over_http.ids(),
    )
)

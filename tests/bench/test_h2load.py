"""What h2load prints, read back; and the answers that it takes for good ones, refused."""

import pytest

from bench import h2load
from bench.errors import BenchError

REPORT = """\
starting benchmark...
finished in 1.18s, 253537.27 req/s, 16.93MB/s
requests: 300000 total, 300000 started, 300000 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout
status codes: 300000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 20.03MB (21001234) total, 3.43MB (3600680) headers (space savings 90.00%), 11.44MB ({data}) data
"""


def test_a_report_gives_rate_time_requests_and_answer_bytes():
    run = h2load.parse(REPORT.format(succeeded=300000, data=12000000))
    assert run == h2load.Run(253537.27, 1.18, 300000, 300000, 12000000)
    run.check("gateway", 40)


@pytest.mark.parametrize(("text", "seconds"), [("697.54ms", 0.69754), ("12us", 12e-6), ("1m 2.5s", 62.5)])
def test_every_unit_of_time_is_read(text, seconds):
    report = REPORT.format(succeeded=300000, data=1).replace("1.18s", text)
    assert h2load.parse(report).seconds == pytest.approx(seconds)


def test_failed_requests_are_refused():
    with pytest.raises(BenchError, match="gateway: 1 of 300000 requests failed"):
        h2load.parse(REPORT.format(succeeded=299999, data=12000000)).check("gateway", 40)


def test_answers_of_another_size_are_refused_because_an_error_is_a_200_to_h2load():
    with pytest.raises(BenchError, match=r"answers of 20\.0 bytes on average, but the right one has 40"):
        h2load.parse(REPORT.format(succeeded=300000, data=6000000)).check("gateway", 40)


def test_no_report_is_an_error_that_shows_the_last_words():
    with pytest.raises(BenchError, match="could not connect"):
        h2load.parse("starting\ncould not connect to host\n")

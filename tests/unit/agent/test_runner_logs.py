# SPDX-License-Identifier: Apache-2.0
from skerry.agent.supervise.logs import LOG_LIMIT, bound_log, open_log


def test_a_log_is_bounded_while_a_runner_writes_to_it(tmp_path):
    path = tmp_path / "logs" / "w.log"
    with open_log(path) as log:
        log.write(b"x" * LOG_LIMIT)
        log.flush()
        bound_log(path)
        assert path.stat().st_size == LOG_LIMIT
        log.write(b"the end")
        log.flush()
        bound_log(path)
        before = path.with_suffix(".log.1").read_bytes()
        assert (len(before), before[-7:]) == (LOG_LIMIT, b"the end")
        log.write(b"and on")
        log.flush()
        assert path.read_bytes() == b"and on"


def test_a_log_that_is_gone_or_cannot_be_written_is_no_reason_to_stop(tmp_path):
    bound_log(tmp_path / "none.log")
    path = tmp_path / "w.log"
    path.write_bytes(b"x" * (LOG_LIMIT + 1))
    path.with_suffix(".log.1").mkdir()
    bound_log(path)
    assert path.stat().st_size == LOG_LIMIT + 1

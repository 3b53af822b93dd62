from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver.core.retry import RetryPolicy, seconds
from dgreceiver.errors import SetupError

rolls = st.floats(0, 1)
waits = st.floats(0.001, 1e6)


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        pytest.param(timedelta(minutes=2), 120.0, id="a timedelta"),
        pytest.param(1.5, 1.5, id="a float"),
        pytest.param(3, 3.0, id="an int"),
        pytest.param(0, 0.0, id="none at all"),
    ],
)
def test_a_duration_is_read_as_seconds(duration, said):
    read = seconds(duration, "keep")
    assert (read, type(read)) == (said, float)


@pytest.mark.parametrize(
    ("duration", "found"),
    [
        pytest.param(float("nan"), "keep is nan; ", id="not a number"),
        pytest.param(float("inf"), "keep is inf; ", id="without end"),
        pytest.param(-1, "keep is -1; ", id="below zero"),
        pytest.param(timedelta(seconds=-1), "keep is -1.0; ", id="a timedelta below zero"),
        pytest.param(10**400, "keep is 1000", id="more than a float can hold"),
        pytest.param(10**5000, "keep is too large; ", id="more than can be shown"),
        pytest.param("7 days", "keep is of type str; ", id="text"),
        pytest.param(None, "keep is of type NoneType; ", id="None"),
        pytest.param(True, "keep is of type bool; ", id="a truth"),
    ],
)
def test_what_is_no_duration_is_refused_with_its_name_and_an_example(duration, found):
    with pytest.raises(SetupError) as refused:
        seconds(duration, "keep")
    message = str(refused.value)
    assert message.startswith(found)
    assert "timedelta(minutes=5)" in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("attempt", "roll", "wait"),
    [
        pytest.param(1, 0.0, 0.5, id="the first, least"),
        pytest.param(1, 1.0, 1.0, id="the first, most"),
        pytest.param(2, 1.0, 2.0, id="doubled"),
        pytest.param(10, 0.5, 384.0, id="half of 512 is fixed"),
        pytest.param(11, 1.0, 600.0, id="at the longest"),
        pytest.param(19, 1.0, 600.0, id="the last wait"),
        pytest.param(20, 1.0, None, id="attempts used up"),
        pytest.param(21, 1.0, None, id="attempts used up before"),
    ],
)
def test_waits_double_up_to_the_longest_until_the_attempts_are_used_up(attempt, roll, wait):
    assert RetryPolicy().wait_after(attempt, roll=roll) == wait


def test_all_waits_together_are_a_while_that_outlives_a_deploy():
    policy = RetryPolicy()
    waits = [policy.wait_after(attempt, roll=0.5) for attempt in range(1, policy.attempts)]
    assert timedelta(hours=1) < timedelta(seconds=sum(wait for wait in waits if wait)) < timedelta(hours=2)


@given(first=waits, longest=waits, attempt=st.integers(1, 10**6), roll=rolls)
def test_a_wait_is_never_over_the_longest_nor_under_half_of_the_shortest(first, longest, attempt, roll):
    wait = RetryPolicy(10**7, first, longest).wait_after(attempt, roll=roll)
    assert wait is not None
    assert min(first, longest) / 2 <= wait <= longest


@given(first=waits, longest=waits, roll=rolls)
def test_the_millionth_wait_is_as_long_as_it_gets(first, longest, roll):
    wait = RetryPolicy(10**7, first, longest).wait_after(10**6, roll=roll)
    assert wait == longest / 2 + longest / 2 * roll


def test_no_wait_at_all_stays_none_at_all():
    assert RetryPolicy(first_wait=0).wait_after(15, roll=1.0) == 0


def test_one_attempt_means_never_again():
    assert RetryPolicy(attempts=1).wait_after(1, roll=0.0) is None


@pytest.mark.parametrize(
    ("policy", "in_lane"),
    [
        pytest.param(RetryPolicy(), RetryPolicy(5, 1.0, 30.0), id="cut down"),
        pytest.param(RetryPolicy(2, 0.1, 3.0), RetryPolicy(2, 0.1, 3.0), id="smaller already"),
        pytest.param(
            RetryPolicy(9, timedelta(minutes=1), timedelta(minutes=2)), RetryPolicy(5, 30.0, 30.0), id="as timedeltas"
        ),
    ],
)
def test_in_a_lane_the_smaller_of_the_policy_and_the_lane_s_holds(policy, in_lane):
    assert policy.in_lane() == in_lane


@pytest.mark.parametrize(
    "attempts",
    [
        pytest.param(0, id="none"),
        pytest.param(-3, id="below none"),
        pytest.param(2.0, id="a float"),
        pytest.param(True, id="a truth"),
        pytest.param("20", id="text"),
    ],
)
def test_attempts_are_counted_from_one(attempts):
    with pytest.raises(SetupError, match="write a whole number from 1"):
        RetryPolicy(attempts=attempts)


@pytest.mark.parametrize("name", ["first_wait", "longest_wait"])
def test_a_wait_that_cannot_be_waited_is_refused_by_name(name):
    with pytest.raises(SetupError, match=f"{name} is -1"):
        RetryPolicy(**{name: -1})

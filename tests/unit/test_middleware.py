import asyncio

import pytest

from stepwell.errors import ConfigError
from stepwell.middleware import (
    Middleware,
    MiddlewareStack,
    MiddlewareSync,
    StepMemo,
    StepMemos,
    TransformOutputResult,
    drive,
)

HOOKS = [
    "transform_input",
    "before_execution",
    "before_step",
    "after_step",
    "before_send_events",
    "after_send_events",
    "after_execution",
    "transform_output",
    "before_response",
]
ARGS = {"transform_input": 3, "before_execution": 0, "after_execution": 0, "before_response": 0}


def recording(name, calls, kind):
    def hook(which):
        async def later(self, *args):
            await asyncio.sleep(0)
            calls.append(f"{name}.{which}")

        def now(self, *args):
            calls.append(f"{name}.{which}")

        return later if kind is Middleware else now

    return type(name, (kind,), {which: hook(which) for which in HOOKS})


def stack(*factories, is_async=True):
    made = MiddlewareStack.build("client", factories, is_async=is_async, where="function 'f'")
    assert made is not None
    return made


def test_no_middleware_is_no_stack():
    assert MiddlewareStack.build("client", [], is_async=True, where="x") is None


@pytest.mark.parametrize("hook", HOOKS)
def test_beginnings_run_in_order_and_endings_in_reverse(hook):
    calls: list[str] = []
    made = stack(recording("A", calls, Middleware), recording("B", calls, MiddlewareSync))
    asyncio.run(made.run(hook, *range(ARGS.get(hook, 1))))
    ending = hook.startswith("after") or hook == "transform_output"
    assert calls == [f"{name}.{hook}" for name in ("BA" if ending else "AB")]


def test_an_entry_from_begin_to_finish():
    calls: list[str] = []
    made = stack(recording("A", calls, Middleware))

    async def entry():
        await made.begin(None, None, StepMemos())
        await made.before_execution()
        await made.finish(TransformOutputResult(output=1))

    asyncio.run(entry())
    assert [call[2:] for call in calls] == [
        "transform_input",
        "before_execution",
        "after_execution",
        "transform_output",
        "before_response",
    ]


def test_before_execution_waits_for_the_replay_and_after_execution_for_success():
    calls: list[str] = []
    made = stack(recording("A", calls, MiddlewareSync))
    memos = StepMemos({"x": StepMemo(1)})
    drive(made.begin(None, None, memos))
    assert calls == ["A.transform_input"]
    drive(made.before_execution())
    drive(made.before_execution())
    drive(made.finish(TransformOutputResult(error=ValueError())))
    assert calls[1:] == ["A.before_execution", "A.transform_output", "A.before_response"]


def test_results_can_be_changed():
    class Double(MiddlewareSync):
        def transform_output(self, result):
            result.output *= 2

    class Add(MiddlewareSync):
        def transform_output(self, result):
            result.output += 1

    made = stack(Double, Add)
    assert drive(made.finish(TransformOutputResult(output=1))).output == 4
    assert made.has("transform_output")
    assert not made.has("before_step")


def test_a_factory_makes_a_fresh_one_for_each_entry():
    made = []

    def factory(client, raw_request):
        made.append(MiddlewareSync(client, raw_request))
        return made[-1]

    stack(factory)
    stack(factory)
    assert len(made) == 2
    assert made[0].client == "client"


def test_async_middleware_needs_an_async_function():
    with pytest.raises(ConfigError) as caught:
        stack(Middleware, is_async=False)
    assert "function 'f': encountered async middleware in non-async context" in str(caught.value)
    assert "MiddlewareSync" in str(caught.value)
    with pytest.raises(ConfigError, match="encountered async middleware"):
        drive(stack(recording("A", [], Middleware)).run("before_execution"))


def test_what_is_no_middleware():
    with pytest.raises(ConfigError, match="made 5, neither a Middleware nor a MiddlewareSync"):
        stack(lambda client, raw: 5)


def test_memos():
    memos = StepMemos({"a": StepMemo(1), "b": StepMemo(2)})
    assert memos.size == 2
    assert [memo.data for memo in memos.values()] == [1, 2]
    taken = memos.pop("a")
    assert taken is not None
    assert taken.data == 1
    assert memos.pop("a") is None
    assert memos.size == 1


def test_has_output():
    assert TransformOutputResult(output=1).has_output()
    assert not TransformOutputResult(error=ValueError()).has_output()
